"""Nothing is lost, nothing depends on the cuts, and what is called is what was written."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects.splitting import TOOL_DIALECTS
from tests.libs.cortex_dialects.splitting.answers import (
    calls_of,
    cuts,
    merged,
    pieces,
    split,
    text_of,
    tool_splitter,
)

MARKERS = ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>"]
FRAGMENTS = [
    *MARKERS,
    "<tool_", "</tool_c", "[TOOL", "<|py", "<", "[", "{", "}", "]", "(", ")", '"', "'", "\\", ";",
    ",", ":", "=", "\n", " ", "\t", "\xa0", "a", "1", "é🙂", "get_time", "get_weather", "other",
    "<function=get_time>", "</function>", "<parameter=a>", "</parameter>",
    '{"name": "get_time", "arguments": {}}', '{"name":"get_time"', '{"name": "other"}',
    '<tool_call>{"name": "get_time"}</tool_call>', "[TOOL_CALLS]get_time[ARGS]{}",
    "<tool_call>\n<function=get_time>\n</function>\n</tool_call>",
    "[TOOL_CALLS] [{", "[get_time()]", "[get_time(a='", '[get_time(a="', "[get_weather(",
]  # fmt: skip
hostile = st.lists(st.sampled_from(FRAGMENTS), max_size=24).map("".join)
dialects = st.sampled_from(sorted(TOOL_DIALECTS))

strings = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4)), max_size=4).map(
    "".join
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    strings,
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["a", "city", "b2", "_c"])
names = st.sampled_from(["get_time", "get_weather"])
calls = st.lists(
    st.tuples(names, st.dictionaries(keys, values, max_size=3)), min_size=1, max_size=3
)

Calls = list[tuple[str, dict[str, Any]]]


def said(name: str, arguments: dict[str, Any], key: str = "arguments") -> str:
    """A call as JSON, with or without escapes for what is not ASCII."""
    return json.dumps({"name": name, key: arguments}, ensure_ascii=len(arguments) % 2 == 0)


def hermes(made: Calls) -> str:
    """Tags with JSON."""
    return "\n".join(f"<tool_call>\n{said(*call)}\n</tool_call>" for call in made)


def mistral_list(made: Calls) -> str:
    """One array."""
    return f"[TOOL_CALLS] [{', '.join(said(*call) for call in made)}]"


def mistral_named(made: Calls) -> str:
    """Names and arguments."""
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{json.dumps(asked)}" for name, asked in made)


def llama3(made: Calls) -> str:
    """Bare objects."""
    return "; ".join(said(*call, key="parameters") for call in made)


def llama3_tagged(made: Calls) -> str:
    """Objects behind a marker."""
    return f"<|python_tag|>{llama3(made)}"


def pythonic(made: Calls) -> str:
    """Python's own way to write literals."""
    return f"[{', '.join(_python_call(*call) for call in made)}]"


def _python_call(name: str, arguments: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


@pytest.mark.parametrize(
    "render", [hermes, mistral_list, mistral_named, llama3, llama3_tagged, pythonic]
)
@given(made=calls, at=cuts)
def test_what_was_written_is_what_is_called(render: Any, made: Calls, at: list[int]) -> None:
    """Names, arguments and order, whatever stands in the strings."""
    dialect = render.__name__.split("_")[0]

    events = split(tool_splitter(dialect), pieces(render(made), at))

    assert text_of(events) == ""
    assert [(call.name, json.loads(call.arguments)) for call in calls_of(events)] == made


@given(
    st.dictionaries(keys, strings.filter(lambda text: "</parameter>" not in text), max_size=3), cuts
)
def test_tags_carry_every_string_but_their_own_end(asked: dict[str, str], at: list[int]) -> None:
    """Newlines at the edges and other tags included."""
    parameters = "".join(
        f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in asked.items()
    )
    block = f"<tool_call>\n<function=get_time>\n{parameters}</function>\n</tool_call>"

    (call,) = calls_of(split(tool_splitter("qwen_xml"), pieces(block, at)))

    assert json.loads(call.arguments) == asked


@given(hostile, cuts, dialects)
def test_any_cut_says_the_same(text: str, at: list[int], dialect: str) -> None:
    """The whole text at once, in pieces and one character at a time."""
    whole = split(tool_splitter(dialect), [text])

    assert split(tool_splitter(dialect), pieces(text, at)) == whole
    assert split(tool_splitter(dialect), text) == whole


@given(st.text(max_size=60), dialects)
def test_no_text_is_too_strange(text: str, dialect: str) -> None:
    """Without markers an answer is the text it is."""
    assert text_of(split(tool_splitter(dialect), text)) == text


BLANK = " \t\r\n"
BLOCK = {
    "hermes": re.compile(r"<tool_call>.*</tool_call>", re.DOTALL),
    "qwen_xml": re.compile(r"<tool_call>.*</tool_call>", re.DOTALL),
    "mistral": re.compile(r"\[TOOL_CALLS\].*[\]}]", re.DOTALL),
    "llama3": re.compile(r"(<\|python_tag\|>\s*)?\{.*\}", re.DOTALL),
    "pythonic": re.compile(r"\[.*\]", re.DOTALL),
}


@given(hostile, dialects)
def test_only_blocks_and_blank_text_around_them_are_taken_away(text: str, dialect: str) -> None:
    """Between two calls stands the text that was said, then at most the next block."""
    splitter = tool_splitter(dialect)
    begun, since = 0, ""
    for at, character in enumerate(text, 1):
        events = splitter.feed(character)
        if not calls_of(events):
            since += text_of(events)
            continue
        since += text_of(events[: events.index(calls_of(events)[0])])
        blank = BLANK + (";" if begun and dialect == "llama3" else "")
        stretch = text[begun:at] if since else text[begun:at].lstrip(blank)
        assert stretch.startswith(since)
        assert BLOCK[dialect].fullmatch(stretch[len(since) :])
        begun, since = at, ""
    since += text_of(splitter.finish())
    assert since == text[begun:] or (begun and not since and not text[begun:].strip(BLANK))


@given(hostile.filter(lambda text: not any(marker in text for marker in MARKERS)))
def test_no_more_waits_than_a_marker_could_be(text: str) -> None:
    """Behind the first visible character, for a dialect whose calls have markers."""
    splitter = tool_splitter("hermes")
    splitter.feed("x")
    out = ""
    for at, character in enumerate(text, 1):
        out += text_of(merged(splitter.feed(character)))
        assert at - len(out) < len("</tool_call>")
        assert text.startswith(out)
