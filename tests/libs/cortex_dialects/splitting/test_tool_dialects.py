"""What models write, dialect by dialect."""

from typing import Any

import pytest

from cortex_dialects.completion_events import TextDelta, ToolCallDelta
from cortex_dialects.splitting import TOOL_DIALECTS, AnswerEvent, detect_tool_dialect
from tests.libs.cortex_dialects.splitting.answers import split, tool_splitter

OSLO = '{"city":"Oslo"}'


def call(position: int, name: str, arguments: str = "{}") -> ToolCallDelta:
    """A whole call, as every dialect gives it."""
    return ToolCallDelta(position, f"call_{position}", name, arguments)


WEATHER, TIME = call(0, "get_weather", OSLO), call(1, "get_time")
CALLS: list[tuple[str, str, list[AnswerEvent]]] = [
    (
        "hermes",
        (
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>\n'
        ),
        [WEATHER, TIME],
    ),
    (
        "hermes",
        'I look.\n<tool_call>{"arguments": {"city": "Oslo"}, "name": "get_weather"}</tool_call>',
        [TextDelta("I look.\n"), WEATHER],
    ),
    (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>.',
        [WEATHER, TextDelta(".")],
    ),
    (
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "</tool_call>"}}</tool_call>',
        [call(0, "get_weather", '{"city":"</tool_call>"}')],
    ),
    (
        "qwen_xml",
        (
            "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n"
            "<parameter=note>\n\n a\n\n</parameter>\n</function>\n</tool_call>\n"
            "<tool_call>\n<function=get_time>\n</function>\n</tool_call>"
        ),
        [call(0, "get_weather", '{"city":"Oslo","note":"\\n a\\n"}'), TIME],
    ),
    (
        "qwen_xml",
        (
            "<tool_call><function=get_weather><parameter=city></tool_call></function></parameter>"
            "</function></tool_call>"
        ),
        [call(0, "get_weather", '{"city":"</tool_call></function>"}')],
    ),
    ("qwen_xml", '<tool_call>{"name": "get_time"}</tool_call>', [call(0, "get_time")]),
    (
        "mistral",
        (
            '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo"}, "id": "aB3dE"}, '
            '{"name": "get_time", "arguments": {}}]'
        ),
        [WEATHER, TIME],
    ),
    (
        "mistral",
        'I look.[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]get_time[ARGS]{}',
        [TextDelta("I look."), WEATHER, TIME],
    ),
    (
        "mistral",
        '[TOOL_CALLS]get_weather[CALL_ID]aB3dE5gH7[ARGS] {"city": "Oslo"}[TOOL_CALLS]get_time{}',
        [WEATHER, TIME],
    ),
    (
        "mistral",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "[TOOL_CALLS] [{"}',
        [call(0, "get_weather", '{"city":"[TOOL_CALLS] [{"}')],
    ),
    (
        "llama3",
        (
            '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}; '
            '{"name": "get_time", "parameters": {}}'
        ),
        [WEATHER, TIME],
    ),
    (
        "llama3",
        (
            '\n{ "type": "function", "name": "get_weather", "parameters": {"city": "Oslo"}};\n'
            '{"name":"get_time"}\n'
        ),
        [WEATHER, TIME],
    ),
    (
        "pythonic",
        "[get_weather(city='Oslo'), get_time()]",
        [WEATHER, TIME],
    ),
    (
        "pythonic",
        '[ get_weather( city = "]\\)" , deep={"a": [1, -2.5, None], \'b\': (True, false)} , ) ]ok',
        [
            call(0, "get_weather", '{"city":"]\\\\)","deep":{"a":[1,-2.5,null],"b":[true,false]}}'),
            TextDelta("ok"),
        ],
    ),
]


@pytest.mark.parametrize(("dialect", "answer", "expected"), CALLS)
def test_calls_are_read(dialect: str, answer: str, expected: list[AnswerEvent]) -> None:
    """Whole or one character at a time, a call is one event with all its arguments."""
    assert split(tool_splitter(dialect), [answer]) == expected
    assert split(tool_splitter(dialect), answer) == expected


NO_CALLS = [
    ("hermes", "<tool_call>get_time()</tool_call>"),
    ("hermes", '<tool_call>{"name": "get_time", "arguments": {}</tool_call>'),
    ("hermes", '<tool_call>{"name": "get_time", "arguments": []}</tool_call>'),
    ("hermes", '<tool_call>{"name": "get_time", "arguments": "{"}</tool_call>'),
    ("hermes", '<tool_call>{"name": ["get_time"]}</tool_call>'),
    ("hermes", '<tool_call>{"name": "get_time"} and more</tool_call>'),
    ("hermes", '<tool_call>{"name": "get_time"}'),
    ("hermes", "</tool_call>"),
    ("hermes", '{"name": "get_time", "arguments": {}}'),
    ("qwen_xml", "<tool_call><function=get_time></tool_call>"),
    ("qwen_xml", "<tool_call><function=get_time>now</function></tool_call>"),
    ("qwen_xml", "<tool_call><functions></functions></tool_call>"),
    (
        "qwen_xml",
        (
            "<tool_call><function=get_time><parameter=a>1</parameter><parameter=a>2</parameter>"
            "</function></tool_call>"
        ),
    ),
    ("mistral", "[TOOL_CALLS] none"),
    ("mistral", '[TOOL_CALLS]{"name": "get_time"}'),
    ("mistral", "[TOOL_CALLS] []"),
    ("mistral", "[TOOL_CALLS]get_time[ARGS]{] bye}"),
    ("mistral", "[TOOL_CALLS]get_time[ARGS]{"),
    ("mistral", "[TOOL_CALLS]get time[ARGS]{}"),
    ("mistral", "[TOOL_CALLS][" + "[" * 300),
    ("llama3", "<|python_tag|>print(1)"),
    ("llama3", 'Look: {"name": "get_time", "parameters": {}}'),
    ("llama3", '{"name": "get_time", "parameters": {'),
    ("llama3", '{"names": []}'),
    ("llama3", ";"),
    ("pythonic", "[get_time(1)]"),
    ("pythonic", "[get_time(a=b)]"),
    ("pythonic", "[get_time(a=1, a=2)]"),
    ("pythonic", "[get_time(a=1e999)]"),
    ("pythonic", "[get_time(a=" + "9" * 5000 + ")]"),
    ("pythonic", "[get_time(a=0123)]"),
    ("pythonic", '[get_time(a="\\ud800")]'),
    ("pythonic", '[get_time(a="\\U00110000")]'),
    ("pythonic", '[get_time(a="\n")]'),
    ("pythonic", "[get_time(a=" + "[" * 300),
    ("pythonic", "[get_time(a=__import__('os'))]"),
    ("pythonic", "[get_time(), 1]"),
    ("pythonic", "[get_time)]"),
    ("pythonic", "See [get_time()]"),
]


@pytest.mark.parametrize(("dialect", "answer"), NO_CALLS)
def test_what_is_no_call_comes_out_as_it_was(dialect: str, answer: str) -> None:
    """Markers included."""
    assert split(tool_splitter(dialect), [answer]) == [TextDelta(answer)]
    assert split(tool_splitter(dialect), answer) == [TextDelta(answer)]


@pytest.mark.parametrize("dialect", sorted(TOOL_DIALECTS))
@pytest.mark.parametrize("block", ["", "[", "[" * 10_000, "{" * 10_000, "[f(a=" + "[" * 10_000])
def test_no_block_is_too_deep(dialect: str, block: str) -> None:
    """However it is nested, what is no call is none."""
    assert TOOL_DIALECTS[dialect].parse(block) is None


def test_many_lists_beside_each_other_are_not_deep() -> None:
    """Only brackets inside of brackets are counted."""
    (read,) = TOOL_DIALECTS["pythonic"].parse(f"[get_time(a=[{'[], ' * 300}])]") or []

    assert read.arguments == {"a": [[]] * 300}


@pytest.mark.parametrize(("dialect", "answer", "expected"), CALLS)
def test_a_call_of_a_tool_that_was_not_offered_is_text(
    dialect: str, answer: str, expected: list[AnswerEvent]
) -> None:
    """Nobody could answer it."""
    assert split(tool_splitter(dialect, {"other": None}), [answer]) == [TextDelta(answer)]


TEMPLATES: list[tuple[str, str | None]] = [
    ("{{ '<tool_call>' }}{{ tool_call | tojson }}{{ '</tool_call>' }}", "hermes"),
    ("<tool_call>\n<function=example>\n<parameter=a>\nb\n</parameter>", "qwen_xml"),
    ("<tool_call>{name}\n<arg_key>{key}</arg_key>", None),
    ('{{ "[TOOL_CALLS]" + name + "[ARGS]" }}', "mistral"),
    ("{{ '<|python_tag|>' + name + '.call(' }}", "llama3"),
    ('in the format {"name": function name, "parameters": dictionary of arguments}', "llama3"),
    ("in the format of [function(key=value), …]", "pythonic"),
    ("{% for message in messages %}{{ message.content }}{% endfor %}", None),
    ("", None),
]


@pytest.mark.parametrize(("template", "expected"), TEMPLATES)
def test_a_template_tells_its_dialect(template: str, expected: str | None) -> None:
    """By the markers that it teaches; what we do not speak is none."""
    assert detect_tool_dialect(template) == expected
    assert expected is None or expected in TOOL_DIALECTS


def test_values_become_what_the_schema_wants() -> None:
    """Tags have no types, so the request's schema says them."""
    schema: dict[str, Any] = {"properties": {"days": {"type": "integer"}}}
    answer = (
        "<tool_call><function=get_weather><parameter=days>\n3\n</parameter>"
        "<parameter=hour>\n3\n</parameter></function></tool_call>"
    )

    assert split(tool_splitter("qwen_xml", {"get_weather": schema}), [answer]) == [
        call(0, "get_weather", '{"days":3,"hour":"3"}')
    ]
