"""Text and calls, told apart whatever the dialect."""

from time import process_time

import pytest

from cortex_dialects.completion_events import TextDelta
from cortex_dialects.splitting import MAX_BLOCK_CHARS
from tests.libs.cortex_dialects.splitting.answers import (
    calls_of,
    pieces,
    split,
    text_of,
    tool_splitter,
)

TIME = '<tool_call>{"name": "get_time"}</tool_call>'


def test_blank_text_is_dropped_around_calls_only() -> None:
    """Before the first call if nothing was said, between calls, and behind the last one."""
    events = split(tool_splitter("hermes"), [f"\n {TIME}\n\n{TIME}\n done \n{TIME}\n"])

    assert text_of(events) == "\n done \n"
    assert [call.position for call in calls_of(events)] == [0, 1, 2]
    assert [call.id for call in calls_of(events)] == ["call_0", "call_1", "call_2"]


def test_one_bad_call_makes_its_block_text_and_no_other() -> None:
    """A block is called as a whole or not at all."""
    bad = '[TOOL_CALLS] [{"name": "get_time", "arguments": {}}, {"name": "other", "arguments": {}}]'
    good = "[TOOL_CALLS]get_time[ARGS]{}"

    events = split(tool_splitter("mistral"), [bad + good])

    assert text_of(events) == bad
    assert [call.position for call in calls_of(events)] == [0]


@pytest.mark.parametrize(
    "broken",
    [
        '<tool_call>{"name": "get_time}</tool_call>\n',
        '<tool_call>{"name": "get_time}</tool_call> ',
        '<tool_call>{"name": "get_time}',
        "<tool_call>",
        "<tool_call>\n<function=get_time><parameter=a>",
    ],
)
def test_a_broken_block_does_not_take_the_next_call_with_it(broken: str) -> None:
    """A quote that was left open swallows markers: then they are looked for once more."""
    for fed in ([broken + TIME], list(broken + TIME)):
        events = split(tool_splitter("hermes"), fed)

        assert text_of(events) == broken
        assert [call.name for call in calls_of(events)] == ["get_time"]


def test_a_marker_after_a_broken_block_counts_for_what_that_block_hid() -> None:
    """Read once more, a block may end in a call that is still open."""
    hidden = '<tool_call>{"a": "<tool_call>{"name": "get_time", "arguments": {"a": ""}}'

    events = split(tool_splitter("hermes"), [f"{hidden}</tool_call>"])

    assert text_of(events) == '<tool_call>{"a": "'
    assert [call.arguments for call in calls_of(events)] == ['{"a":""}']


def test_a_marker_after_a_broken_block_may_be_part_of_what_that_block_hid() -> None:
    """Nothing is lost where a call began inside of another one's open quote."""
    answer = '<tool_call>{"a": "<tool_call>{"1<tool_call>": 2, "name": "get_time"}</tool_call>'

    for fed in ([answer], list(answer)):
        events = split(tool_splitter("hermes"), fed)

        assert text_of(events) == '<tool_call>{"a": "'
        assert [call.name for call in calls_of(events)] == ["get_time"]


def test_what_sets_calls_apart_is_text_elsewhere() -> None:
    """A semicolon is dropped between two calls only."""
    call = '{"name": "get_time"}'

    assert split(tool_splitter("llama3"), [f";{call}"]) == [TextDelta(f";{call}")]
    assert text_of(split(tool_splitter("llama3"), [f"{call}; {call}"])) == ""
    assert text_of(split(tool_splitter("llama3"), [f"{call}; "])) == "; "


@pytest.mark.parametrize(
    ("dialect", "before", "after", "closer"),
    [
        ("hermes", '<tool_call>{"name": "get_time", "parameters": {"a": "', '"}}', "</tool_call>"),
        (
            "qwen_xml",
            "<tool_call><function=get_time><parameter=a>",
            "</parameter></function>",
            "</tool_call>",
        ),
        ("mistral", '[TOOL_CALLS]get_time[ARGS]{"a": "', '"}', ""),
        ("llama3", '{"name": "get_time", "parameters": {"a": "', '"}}', ""),
        ("pythonic", '[get_time(a="', '")]', ""),
    ],
)
def test_a_block_beyond_the_limit_is_text(
    dialect: str, before: str, after: str, closer: str
) -> None:
    """One character more than the limit is too many, however it came."""
    most = MAX_BLOCK_CHARS - len(before) - len(after)
    fits, exceeds = (before + "x" * size + after + closer for size in (most, most + 1))

    for fed in ([fits], pieces(fits, range(0, most, 50_000))):
        assert len(calls_of(split(tool_splitter(dialect), fed))) == 1
    for fed in ([exceeds], pieces(exceeds, range(0, most, 50_000))):
        assert split(tool_splitter(dialect), fed) == [TextDelta(exceeds)]


def test_endless_blank_text_is_not_kept() -> None:
    """Memory is bounded here too, and the calls behind it still count."""
    blank = " " * (MAX_BLOCK_CHARS + 1)

    events = split(tool_splitter("hermes"), [blank, TIME])

    assert text_of(events) == blank
    assert len(calls_of(events)) == 1


@pytest.mark.parametrize(
    ("dialect", "fed", "said"),
    [
        ("hermes", "a <tool_", "a "),
        ("hermes", "a <tool_x", "a <tool_x"),
        ("hermes", "a\n", "a\n"),
        ("hermes", "a <tool_call>x", "a <tool_call>x"),
        ("hermes", '<tool_call>{"a\n', '<tool_call>{"a\n'),
        ("mistral", "see [TOOL", "see "),
        ("mistral", "[TOOL_CALLS]" + "[1," * 300, "[TOOL_CALLS]" + "[1," * 300),
        ("mistral", "[TOOL_CALLS]" + "a" * 300, "[TOOL_CALLS]" + "a" * 300),
        ("mistral", "[TOOL_CALLS]so ", "[TOOL_CALLS]so "),
        ("llama3", '{ "name"', ""),
        ("llama3", '{"name": "get_wea', ""),
        ("llama3", '{"name": "Bob', '{"name": "Bob'),
        ("llama3", '{"a', '{"a'),
        ("llama3", '{"name": "get_time" so', '{"name": "get_time" so'),
        ("pythonic", "[get_", ""),
        ("pythonic", "[get_time(a=" + "[" * 300, "[get_time(a=" + "[" * 300),
        ("pythonic", "[1", "[1"),
        ("pythonic", "[get_time]", "[get_time]"),
        ("pythonic", "[get_time(a=1) & ", "[get_time(a=1) & "),
    ],
)
def test_text_waits_only_while_it_may_become_a_call(dialect: str, fed: str, said: str) -> None:
    """Whoever reads along sees the rest at once."""
    splitter = tool_splitter(dialect)

    assert text_of(event for piece in fed for event in splitter.feed(piece)) == said


@pytest.mark.parametrize(
    ("dialect", "hostile"),
    [
        ("hermes", '<tool_call>{"\\"</tool_call>'),
        ("qwen_xml", "<tool_call><function=f><parameter=a>"),
        ("mistral", '[TOOL_CALLS][{"a":"'),
        ("llama3", '<|python_tag|>{"a":"'),
        ("pythonic", "[get_time()]"),
        ("pythonic", "[get_time(a=["),
    ],
)
def test_hostile_text_costs_no_more_than_its_length(dialect: str, hostile: str) -> None:
    """Two hundred thousand characters, at once and one by one: seconds would be a square."""
    text = (hostile * 200_000)[:200_000]
    began = process_time()
    whole = split(tool_splitter(dialect), [text])
    single = split(tool_splitter(dialect), text)

    assert whole == single
    assert process_time() - began < 6
