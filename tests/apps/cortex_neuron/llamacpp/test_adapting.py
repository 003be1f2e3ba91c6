"""What llama.cpp refuses or ignores reaches it in a form that it does not."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest
from cortex_neuron.chat_body import stop_strings
from cortex_neuron.llamacpp.adapting import adapted, gathered

HELLO = {"role": "user", "content": "Hello."}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("clock", "forecast")]
CLOCK = {"type": "function", "function": {"name": "clock"}}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "function", "name", "arguments", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = ["messages", "tools", "tool_choice", "stop", "response_format"]


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return an adapted chat of a model whose template knows tools."""
    return adapted({"messages": list(messages), **more}, knows_tools=True)


def test_what_needs_no_mending_stays() -> None:
    """A body that llama.cpp takes is the same afterwards, also what is not known here."""
    call = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}
    body = {
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "a"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "12:00", "tool_call_id": "1"},
        ],
        "tools": TOOLS,
        "tool_choice": "auto",
        "max_tokens": 3,
        "new": [1],
    }

    assert adapted(body, knows_tools=False) == body


@pytest.mark.parametrize("role", ["user", "system", "tool", "assistant"])
def test_a_missing_content_is_an_empty_one(role: str) -> None:
    """On every role; null stays, which llama.cpp takes."""
    missing, null = chat({"role": role}, {"role": role, "content": None})["messages"]

    assert missing == {"role": role, "content": ""}
    assert null == {"role": role, "content": None}


def test_null_is_as_good_as_absent() -> None:
    """Clients send every field that they know."""
    message = chat({**HELLO, "name": None, "reasoning_content": None, "tool_calls": None})

    assert message["messages"] == [HELLO]


def test_a_refusal_is_text() -> None:
    """What the model once refused stays in the conversation."""
    said = chat({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]})

    assert said["messages"][0]["content"] == [{"type": "text", "text": "No."}]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ("", {}),
        (None, {}),
        ('{"a": 1}', {"a": 1}),
        ('{"a": "Ro', {"invalid_json": '{"a": "Ro'}),
    ],
)
def test_arguments_of_a_call_are_json(arguments: Any, wanted: Any) -> None:
    """A call that was cut short does not end the conversation for good."""
    call = {"id": "1", "function": {"name": "f", "arguments": arguments}}
    mended = chat({"role": "assistant", "tool_calls": [call]})["messages"][0]["tool_calls"][0]

    assert mended["type"] == "function"
    assert json.loads(mended["function"]["arguments"]) == wanted


def test_a_named_function_is_the_only_one_and_required() -> None:
    """llama.cpp takes a name for no choice at all."""
    body = chat(HELLO, tools=TOOLS, tool_choice=CLOCK)

    assert (body["tools"], body["tool_choice"]) == ([CLOCK], "required")


def test_allowed_tools_are_the_only_ones() -> None:
    """In the mode that was asked for."""
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [CLOCK]}}
    body = chat(HELLO, tools=TOOLS, tool_choice=allowed)

    assert (body["tools"], body["tool_choice"]) == ([CLOCK], "auto")


@pytest.mark.parametrize(
    "more",
    [
        {"tool_choice": {"type": "function", "function": {"name": "none"}}, "tools": TOOLS},
        {"tool_choice": CLOCK},
        {"tool_choice": "required"},
        {"tool_choice": "any", "tools": TOOLS},
        {"tool_choice": 5},
        {"tool_choice": []},
        {"tool_choice": {"type": "auto"}},
        {"response_format": "json"},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
        {"response_format": {"type": "json_schema", "json_schema": "x"}},
        {"stop": 5},
        {"stop": ["a", 5]},
        {"messages": []},
        {"messages": "hi"},
        {"messages": ["hi"]},
        {"messages": [{"content": "hi"}]},
        {"messages": [{"role": 5}]},
    ],
)
def test_what_cannot_be_meant_is_refused(more: dict[str, Any]) -> None:
    """llama.cpp would pass over it in silence, or fail as if it were its own fault."""
    with pytest.raises(InvalidRequest) as caught:
        adapted({"messages": [HELLO], **more}, knows_tools=True)

    assert caught.value.param


def test_log_probabilities_beside_tools_are_refused() -> None:
    """llama.cpp has them for text alone."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    body = {"messages": [{"role": "user", "content": "x"}], "logprobs": True}

    assert adapted(body, knows_tools=True)["logprobs"]
    with pytest.raises(InvalidRequest) as refused:
        adapted({**body, "tools": tools}, knows_tools=True)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "logprobs")


def test_a_call_cannot_be_required_of_a_model_without_tools() -> None:
    """Offered tools are ignored by such a model, which `auto` allows; a must is not met."""
    body = {"messages": [HELLO], "tools": TOOLS}
    with pytest.raises(InvalidRequest) as caught:
        adapted({**body, "tool_choice": "required"}, knows_tools=False)

    assert caught.value.code == "tools_unsupported"
    assert adapted(body, knows_tools=False) == body


@pytest.mark.parametrize(
    ("stop", "wanted"),
    [(None, ()), ("", ()), ("a", ("a",)), (["", "a", "b"], ("a", "b")), ([], ())],
)
def test_empty_stop_strings_do_not_count(stop: Any, wanted: tuple[str, ...]) -> None:
    """An empty one would end every answer before it begins."""
    assert stop_strings({"stop": stop}) == wanted
    assert adapted({"prompt": "x", "stop": stop}, knows_tools=True)["stop"] == list(wanted)


def test_system_messages_gather_in_front() -> None:
    """In their order, as one, whether text or parts; everybody else keeps their order."""
    late = {"role": "developer", "content": [{"type": "text", "text": t} for t in ("B", "C")]}
    silent = {"role": "system", "content": None}
    body = chat({"role": "system", "content": "A"}, HELLO, late, silent, HELLO, max_tokens=1)

    assert gathered(body) == {
        "messages": [{"role": "system", "content": "A\n\nB\nC"}, HELLO, HELLO],
        "max_tokens": 1,
    }


@pytest.mark.parametrize("messages", [[HELLO], [{"role": "system", "content": "A"}, HELLO]])
def test_nothing_to_gather(messages: list[dict[str, Any]]) -> None:
    """Then there is nothing else to try."""
    assert gathered(chat(*messages)) is None


@given(
    st.just({"messages": [HELLO]}) | st.just({}),
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=2),
    st.booleans(),
)
def test_any_body_is_adapted_or_refused(
    start: dict[str, Any], more: dict[str, Any], knows_tools: bool
) -> None:
    """Nothing else comes out, what came in is not touched, and a second time changes nothing."""
    body = {**start, **more}
    before = json.dumps(body)
    try:
        once = adapted(body, knows_tools=knows_tools)
        other = gathered(once)
    except InvalidRequest:
        return

    assert json.dumps(body) == before
    assert adapted(once, knows_tools=knows_tools) == once
    assert other is None or gathered(other) is None
