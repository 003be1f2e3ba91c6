"""The tools of a request, and which of them may and must be called."""

from typing import Any

import pytest

from cortex_dialects.responses import to_chat
from tests.libs.cortex_dialects.responses.bodies import (
    APPLY_PATCH,
    FILES,
    SHELL,
    WEB_SEARCH,
    codex,
)


def names(chat: dict[str, Any]) -> list[str]:
    """The tools that the node's model sees."""
    return [tool["function"]["name"] for tool in chat.get("tools", [])]


@pytest.mark.parametrize(
    ("choice", "wanted", "tools"),
    [
        ("none", "none", ["shell", "apply_patch", "mcp__files__read", "mcp__files__write"]),
        ({"type": "allowed_tools", "mode": "auto", "tools": [SHELL]}, "auto", ["shell"]),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [APPLY_PATCH, WEB_SEARCH]},
            "required",
            ["apply_patch"],
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [FILES]},
            "auto",
            ["mcp__files__read", "mcp__files__write"],
        ),
        ({"type": "allowed_tools", "mode": "auto", "tools": []}, None, []),
    ],
)
def test_a_choice_of_tools(choice: Any, wanted: Any, tools: list[str]) -> None:
    """A choice is told in the node's names, and a narrower one shows the model fewer tools."""
    chat = to_chat({**codex(), "tool_choice": choice})

    assert chat.get("tool_choice") == wanted
    assert names(chat) == tools


@pytest.mark.parametrize(
    ("choice", "wire_name"),
    [
        ({"type": "function", "name": "shell"}, "shell"),
        ({"type": "function", "function": {"name": "shell"}}, "shell"),
        ({"type": "custom", "name": "apply_patch"}, "apply_patch"),
        ({"type": "function", "name": "read"}, "mcp__files__read"),
        ({"type": "function", "namespace": "mcp__files__", "name": "read"}, "mcp__files__read"),
    ],
)
def test_one_tool_can_be_forced(choice: dict[str, Any], wire_name: str) -> None:
    """It is named as the client knows it, in either form; the model still sees the others."""
    chat = to_chat({**codex(), "tool_choice": choice})

    assert chat["tool_choice"] == {"type": "function", "function": {"name": wire_name}}
    assert len(names(chat)) == 4


def test_names_on_the_node_are_never_shared() -> None:
    """A group's tool gives way to a plain one, wherever that is declared."""
    group = {
        "type": "namespace",
        "name": "a",
        "description": "",
        "tools": [{"type": "function", "name": "b"}],
    }
    other = {**group, "name": "a__", "tools": [{"type": "custom", "name": "b"}]}
    chat = to_chat(
        {"model": "m", "input": "x", "tools": [group, other, {"type": "function", "name": "a__b"}]}
    )

    assert sorted(names(chat)) == ["a__b", "a__b_2", "a__b_3"]


def test_tools_may_be_wrapped_or_come_later() -> None:
    """Functions in chat completions' form, and tools that an item of the input adds."""
    body = {
        "model": "m",
        "input": [
            {"type": "additional_tools", "role": "developer", "tools": [SHELL]},
            {"role": "user", "content": "x"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }

    assert names(to_chat(body)) == ["f", "shell"]
