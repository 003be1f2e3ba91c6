"""A Responses request, as a chat completion request."""

from typing import Any

import pytest
from orjson import dumps

from cortex_dialects.responses import to_chat
from tests.libs.cortex_dialects.responses.bodies import (
    PARAMETERS,
    SHELL,
    WEB_SEARCH,
    codex,
    everything,
)

PIXEL = "data:image/png;base64,iVBORw0KGgo="


def messages_of(given: Any, **more: Any) -> list[dict[str, Any]]:
    """The chat's messages for this input."""
    messages: list[dict[str, Any]] = to_chat({"model": "m", "input": given, **more})["messages"]
    return messages


def call(call_id: str, name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    """A chat's tool call."""
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def test_an_agents_turn_becomes_a_chat() -> None:
    """Roles, thoughts, calls and tools of every kind, and nothing that a node cannot use."""
    assert to_chat(codex()) == {
        "model": "qwen3-coder",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [
            {
                "role": "system",
                "content": "You are a coding agent.\n\nSandbox: read-only.\n\nNetwork: off.",
            },
            {"role": "user", "content": "Mend the build."},
            {
                "role": "assistant",
                "content": "I look at it.",
                "reasoning_content": "Look first.",
                "tool_calls": [
                    call("call_1", "shell", '{"command":["ls"]}'),
                    call("call_2", "mcp__files__read", '{"path":"Makefile"}'),
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "Makefile"},
            {"role": "tool", "tool_call_id": "call_2", "content": "all:"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call("call_3", "apply_patch", '{"input":"*** Begin Patch\\n"}')],
            },
            {"role": "tool", "tool_call_id": "call_3", "content": "Done"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "shell",
                    "description": "Runs a command.",
                    "parameters": SHELL["parameters"],
                    "strict": False,
                },
            },
            {
                "type": "function",
                "function": {
                    "name": "apply_patch",
                    "description": "Edits files.\n\n"
                    "`input` must follow this lark grammar:\nstart: patch",
                    "parameters": {
                        "type": "object",
                        "properties": {"input": {"type": "string"}},
                        "required": ["input"],
                        "additionalProperties": False,
                    },
                },
            },
            {
                "type": "function",
                "function": {
                    "name": "mcp__files__read",
                    "description": "The files of the project.\n\nReads.",
                    "parameters": PARAMETERS,
                },
            },
            {
                "type": "function",
                "function": {
                    "name": "mcp__files__write",
                    "description": "Writes.",
                    "parameters": PARAMETERS,
                },
            },
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning_effort": "medium",
        "chat_template_kwargs": {"enable_thinking": True},
    }


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"role": "user", "content": "hi"}, {"role": "user", "content": "hi"}),
        ({"role": "user", "content": None}, {"role": "user", "content": ""}),
        ({"type": "message", "role": "user"}, {"role": "user", "content": ""}),
        ({"role": "assistant", "content": None}, {"role": "assistant", "content": ""}),
        ({"role": "developer", "content": "d"}, {"role": "system", "content": "d"}),
        (
            {"role": "user", "content": [{"type": "new_part"}, {"type": "text", "text": "t"}]},
            {"role": "user", "content": "t"},
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": PIXEL, "detail": "low"},
                    {"type": "input_image", "image_url": {"url": PIXEL}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": PIXEL}},
                ],
            },
        ),
        (
            {
                "role": "assistant",
                "content": [
                    {"type": "output_text", "text": "a"},
                    {"type": "output_text", "text": "b"},
                    {"type": "refusal", "refusal": "c"},
                ],
            },
            {"role": "assistant", "content": "abc"},
        ),
        (
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": {"a": 1}},
            {"role": "assistant", "content": None, "tool_calls": [call("1", "f", '{"a":1}')]},
        ),
        (
            {"type": "function_call", "id": "1", "name": "f"},
            {"role": "assistant", "content": None, "tool_calls": [call("1")]},
        ),
        (
            {"type": "local_shell_call", "call_id": "1", "action": {"command": ["ls"]}},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call("1", "local_shell", '{"command":["ls"]}')],
            },
        ),
        (
            {"type": "function_call_output", "call_id": "1", "output": {"a": 1}},
            {"role": "tool", "tool_call_id": "1", "content": '{"a":1}'},
        ),
    ],
)
def test_items_are_read_as_clients_write_them(
    item: dict[str, Any], message: dict[str, Any]
) -> None:
    """Untyped messages, missing content, new kinds of parts: none of them ends an agent's work."""
    assert messages_of([{"type": "new_item"}, item]) == [message]


def test_a_string_is_the_users_message() -> None:
    """The shortest request."""
    assert to_chat({"model": "m", "input": "hi"}) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
    }


def test_only_leading_system_items_are_merged() -> None:
    """Templates want one system message first; a later one keeps its place."""
    given = [
        {"role": "system", "content": "b"},
        {"role": "developer", "content": "c"},
        {"role": "user", "content": "u"},
        {"role": "developer", "content": "d"},
    ]

    assert messages_of(given, instructions="a") == [
        {"role": "system", "content": "a\n\nb\n\nc"},
        {"role": "user", "content": "u"},
        {"role": "system", "content": "d"},
    ]


def test_a_turn_is_one_message_and_its_results_follow() -> None:
    """Text and thoughts after a call would stand between it and its result."""
    given = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "r1"}]},
        {"type": "function_call", "call_id": "1", "name": "f"},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "r2"}], "summary": []},
        {"role": "assistant", "content": "text"},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
        {"role": "assistant", "content": "end"},
    ]

    assert messages_of(given) == [
        {
            "role": "assistant",
            "content": "text",
            "tool_calls": [call("1")],
            "reasoning_content": "r1\n\nr2",
        },
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "assistant", "content": "end"},
    ]


def test_images_of_results_come_after_the_last_result() -> None:
    """A tool's message holds text only, and a message between two results breaks templates."""
    image = {"type": "input_image", "image_url": PIXEL}
    given = [
        {"type": "function_call", "call_id": "1", "name": "f"},
        {"type": "function_call", "call_id": "2", "name": "f"},
        {"type": "function_call_output", "call_id": "1", "output": [image]},
        {"type": "function_call_output", "call_id": "2", "output": "x"},
    ]

    assert messages_of(given)[1:] == [
        {
            "role": "tool",
            "tool_call_id": "1",
            "content": "",
        },
        {"role": "tool", "tool_call_id": "2", "content": "x"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]},
    ]


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"max_output_tokens": 5}, {"max_tokens": 5}),
        ({"temperature": 0, "top_p": 1}, {"temperature": 0, "top_p": 1}),
        ({"temperature": None, "max_output_tokens": None, "tools": None}, {}),
        ({"stream": False}, {"stream": False}),
        (
            {"seed": 7, "top_k": 4, "stop": ["x"], "keep_alive": "5m"},
            {"seed": 7, "top_k": 4, "stop": ["x"], "keep_alive": "5m"},
        ),
        ({"top_logprobs": 3}, {}),
        (
            {"top_logprobs": 3, "include": ["message.output_text.logprobs"]},
            {"logprobs": True, "top_logprobs": 3},
        ),
        ({"text": {"format": {"type": "text"}, "verbosity": "high"}}, {}),
        (
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": {"type": "json_object"}},
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {"a": 1}},
                }
            },
        ),
        (
            {"reasoning": {"effort": "none"}},
            {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": False}},
        ),
        (
            {"reasoning": {"effort": "minimal"}, "chat_template_kwargs": {"k": 1}},
            {
                "reasoning_effort": "minimal",
                "chat_template_kwargs": {"enable_thinking": False, "k": 1},
            },
        ),
        (
            {
                "reasoning": {"effort": "high"},
                "chat_template_kwargs": {"enable_thinking": False},
            },
            {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}},
        ),
        ({"reasoning": {"summary": "auto"}}, {}),
        (
            {"metadata": {"a": "b"}, "user": "u", "store": True, "service_tier": "auto"},
            {},
        ),
        ({"tools": [WEB_SEARCH], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
        ({"messages": [], "max_tool_calls": 3}, {}),
    ],
)
def test_settings(given: dict[str, Any], fields: dict[str, Any]) -> None:
    """What a node knows under another name, as it is, or not at all."""
    chat = to_chat({"model": "m", "input": "hi", **given})

    assert chat == {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}


@pytest.mark.parametrize("body", [codex(), everything()])
def test_the_same_request_is_the_same_bytes(body: dict[str, Any]) -> None:
    """A node's cached prompt is found again only if nothing moved; the request stays as it was."""
    before = dumps(body)

    assert dumps(to_chat(body)) == dumps(to_chat(body))
    assert dumps(body) == before
