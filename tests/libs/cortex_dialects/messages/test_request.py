"""Messages requests become chat completions, nothing lost."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orjson import dumps

from cortex_dialects import BadBody
from cortex_dialects.messages import shows_thinking, to_chat, to_messages
from tests.libs.cortex_dialects.completions import json_values
from tests.libs.cortex_dialects.messages.requests import requests

USER = {"role": "user", "content": "hi"}
PDF = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "x"},
}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "aGk="}


def chat(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Translate a small request."""
    return to_chat({"model": "m", "max_tokens": 9, "messages": list(turns or [USER]), **more})


def messages(*turns: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    """Return the chat messages of a small request."""
    made: list[dict[str, Any]] = chat(*turns, **more)["messages"]
    return made


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    """Return a user turn of blocks."""
    return {"role": "user", "content": list(blocks)}


def test_system_texts_come_first_and_verbatim() -> None:
    """As a string, as blocks, and from turns that come later."""
    blocks = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=abc"},
        {"type": "text", "text": " You are Bo. \n", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Be brief."},
    ]
    later = {"role": "system", "content": [{"type": "text", "text": "It is noon."}]}

    assert messages(system=" Be. ")[0] == {"role": "system", "content": " Be. "}
    assert messages(USER, later, system=blocks) == [
        {"role": "system", "content": " You are Bo. \n\n\nBe brief.\n\nIt is noon."},
        USER,
    ]
    assert messages() == [USER]


def test_results_of_tools_come_before_what_the_user_says() -> None:
    """Each in a message of its own; a failed one says so; its images follow as the user's."""
    turn = user(
        {"type": "tool_result", "tool_use_id": "a", "content": "fine"},
        {
            "type": "tool_result",
            "tool_use_id": "b",
            "is_error": True,
            "content": [
                {"type": "text", "text": "no such file"},
                {"type": "image", "source": PIXEL},
            ],
        },
        {"type": "tool_result", "tool_use_id": "c"},
        {"type": "text", "text": "go on"},
    )

    assert messages(turn) == [
        {"role": "tool", "tool_call_id": "a", "content": "fine"},
        {"role": "tool", "tool_call_id": "b", "content": "Error: no such file"},
        {"role": "tool", "tool_call_id": "c", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                {"type": "text", "text": "go on"},
            ],
        },
    ]


def test_an_assistants_turn_keeps_thoughts_text_and_calls() -> None:
    """Arguments are JSON text, and content is null where there is nothing but calls."""
    call = {"type": "tool_use", "id": "t1", "name": "ls", "input": {"b": 1, "a": [2]}}
    thought = {"type": "thinking", "thinking": "Hm", "signature": "x"}
    told = [
        {"type": "redacted_thinking", "data": "x"},
        thought,
        {"type": "text", "text": "I look."},
        call,
    ]

    full, bare = messages(
        {"role": "assistant", "content": told}, {"role": "assistant", "content": [call]}
    )
    assert full == {
        "role": "assistant",
        "content": "I look.",
        "reasoning_content": "Hm",
        "tool_calls": [
            {
                "id": "t1",
                "type": "function",
                "function": {"name": "ls", "arguments": '{"b":1,"a":[2]}'},
            }
        ],
    }
    assert bare["content"] is None


def test_the_summary_of_a_compacted_conversation_is_read() -> None:
    """It is all there is of the turns before it."""
    blocks = [
        {"type": "compaction", "content": "They said hi.", "encrypted_content": "x"},
        {"type": "compaction", "content": None},
    ]

    assert messages({"role": "assistant", "content": blocks}, USER)[0] == {
        "role": "assistant",
        "content": "They said hi.",
    }


def test_tools_become_functions() -> None:
    """Fields that only matter to Anthropic are left out; a tool search finds everything anyway."""
    tools = [
        {
            "name": "ls",
            "description": "List.",
            "input_schema": {"type": "object"},
            "defer_loading": True,
            "cache_control": {"type": "ephemeral"},
        },
        {"type": "custom", "name": "pwd"},
        {"type": "tool_search_tool_regex_20251119", "name": "search"},
    ]

    assert chat(tools=tools)["tools"] == [
        {
            "type": "function",
            "function": {"name": "ls", "description": "List.", "parameters": {"type": "object"}},
        },
        {
            "type": "function",
            "function": {"name": "pwd", "parameters": {"type": "object", "properties": {}}},
        },
    ]


@pytest.mark.parametrize(
    ("choice", "fields"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any"}, {"tool_choice": "required"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "tool", "name": "ls", "disable_parallel_tool_use": True},
            {
                "tool_choice": {"type": "function", "function": {"name": "ls"}},
                "parallel_tool_calls": False,
            },
        ),
    ],
)
def test_each_tool_choice_is_mapped(choice: dict[str, Any], fields: dict[str, Any]) -> None:
    """All four kinds, and whether calls may come in parallel."""
    made = chat(tools=[{"name": "ls"}], tool_choice=choice)

    assert {k: made[k] for k in ("tool_choice", "parallel_tool_calls") if k in made} == fields


@pytest.mark.parametrize(
    ("thinking", "enabled", "shown"),
    [
        (None, False, False),
        ({"type": "disabled"}, False, False),
        ({"type": "enabled", "budget_tokens": 2048}, True, True),
        ({"type": "adaptive"}, True, True),
        ({"type": "adaptive", "display": "omitted"}, True, False),
        ({"type": "a kind of next year"}, True, True),
    ],
)
def test_thinking_is_switched_as_asked(
    thinking: dict[str, Any] | None, enabled: bool, shown: bool
) -> None:
    """Off unless asked for, and kinds that are not known yet are no error."""
    body = {"model": "m", "messages": [USER], "thinking": thinking}
    made = to_chat(body)

    assert made["chat_template_kwargs"] == {"enable_thinking": enabled}
    assert made.get("thinking_budget_tokens") == (thinking or {}).get("budget_tokens")
    assert shows_thinking(body) is shown


def test_what_a_template_is_told_by_the_client_wins() -> None:
    """An engine's own fields pass as they are."""
    made = chat(chat_template_kwargs={"enable_thinking": True, "x": 1}, min_p=0.1, seed=3)

    assert made["chat_template_kwargs"] == {"enable_thinking": True, "x": 1}
    assert (made["min_p"], made["seed"]) == (0.1, 3)


def test_newer_fields_are_never_an_error() -> None:
    """What agents send today, and what they may send tomorrow."""
    made = chat(
        context_management={"edits": [{"type": "clear_tool_uses_20250919"}]},
        output_config={"effort": "high"},
        service_tier="auto",
        container=None,
        betas=["x"],
        thread={"type": "create"},
        fallbacks="default",
        diagnostics={"previous_message_id": "msg_0"},
    )

    assert set(made) == {
        "model", "max_tokens", "messages", "chat_template_kwargs", "reasoning_effort"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": ["x"]}, "messages.0"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [user({"type": "text"})]}, "messages.0.content.0.text"),
        ({"messages": [user(PDF)]}, "messages.0.content.0"),
        ({"messages": [user({"type": "hologram"})]}, "messages.0.content.0"),
        (
            {"messages": [user({"type": "image", "source": {"type": "file", "file_id": "f"}})]},
            "messages.0.content.0.source.type",
        ),
        ({"messages": [USER], "max_tokens": 0}, "max_tokens"),
        ({"messages": [USER], "max_tokens": True}, "max_tokens"),
        ({"messages": [USER], "system": 7}, "system"),
        ({"messages": [USER], "tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools.0"),
        ({"messages": [USER], "tools": [{"description": "x"}]}, "tools.0.name"),
        (
            {"messages": [USER], "tools": [{"name": "f"}], "tool_choice": {"type": "x"}},
            "tool_choice.type",
        ),
        ({"messages": [USER], "stop_sequences": "x"}, "stop_sequences"),
        ({"messages": [USER], "thinking": "yes"}, "thinking"),
        ({"messages": [USER], "mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"messages": [USER], "compaction": {"type": "summarize"}}, "compaction"),
        ({"messages": [USER], "thread": {"type": "continue"}}, "thread"),
    ],
)
def test_what_cannot_be_done_is_refused_where_it_stands(body: dict[str, Any], param: str) -> None:
    """The message names the place."""
    with pytest.raises(BadBody) as refused:
        to_chat({"model": "m", **body})

    assert refused.value.param == param


@given(requests())
def test_there_and_back_keeps_everything(body: dict[str, Any]) -> None:
    """Everything that both dialects can express."""
    assert to_messages(to_chat(body)) == body


@given(requests())
def test_a_turn_more_leaves_the_bytes_before_it_as_they_were(body: dict[str, Any]) -> None:
    """So the engine finds what it has read already in its cache."""
    before = dumps(to_chat(body)["messages"])
    longer = [*body["messages"], {"role": "assistant", "content": "yes"}, USER]
    after = dumps(to_chat({**body, "messages": longer})["messages"])

    assert after.startswith(before[:-1])


FIELDS = st.sampled_from(
    [
        "system",
        "messages",
        "tools",
        "tool_choice",
        "thinking",
        "metadata",
        "output_config",
        "stop_sequences",
    ]
)


@given(body=requests(), field=FIELDS, value=json_values)
def test_no_body_raises_anything_but_our_error(
    body: dict[str, Any], field: str, value: Any
) -> None:
    """A good request with one thing wrong, or one block."""
    spoiled = [{**body, field: value}]
    if isinstance(value, dict):
        kinds = (
            "text",
            "image",
            "tool_use",
            "tool_result",
            "thinking",
            "document",
            "search_result",
        )
        for kind in kinds:
            for role in ("user", "assistant", "system"):
                turn = {"role": role, "content": [{**value, "type": kind}]}
                spoiled.append({**body, "messages": [*body["messages"], turn]})
    for one in spoiled:
        try:
            made = to_chat(one)
        except BadBody:
            continue
        try:
            to_messages(made)
        except BadBody:
            continue
