"""Requests as clients send them, for tests."""

from typing import Any

PARAMETERS = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
SHELL: dict[str, Any] = {
    "type": "function",
    "name": "shell",
    "description": "Runs a command.",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"command": {"type": "array", "items": {"type": "string"}}},
    },
}
APPLY_PATCH: dict[str, Any] = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: patch"},
}
FILES: dict[str, Any] = {
    "type": "namespace",
    "name": "mcp__files__",
    "description": "The files of the project.",
    "tools": [
        {"type": "function", "name": "read", "description": "Reads.", "parameters": PARAMETERS},
        {"type": "function", "name": "write", "description": "Writes.", "parameters": PARAMETERS},
    ],
}
WEB_SEARCH: dict[str, Any] = {"type": "web_search", "external_web_access": False}


def codex() -> dict[str, Any]:
    """The second turn of an agent: everything that Codex is known to send."""
    return {
        "model": "qwen3-coder",
        "instructions": "You are a coding agent.",
        "input": [
            {
                "type": "message",
                "role": "developer",
                "content": [
                    {"type": "input_text", "text": "Sandbox: read-only."},
                    {"type": "input_text", "text": "Network: off."},
                ],
            },
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Mend the build."}],
            },
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "Look first."}],
                "content": None,
                "encrypted_content": "gAAAA",
            },
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "I look at it."}],
            },
            {
                "type": "function_call",
                "name": "shell",
                "arguments": '{"command":["ls"]}',
                "call_id": "call_1",
            },
            {
                "type": "function_call",
                "namespace": "mcp__files__",
                "name": "read",
                "arguments": '{"path":"Makefile"}',
                "call_id": "call_2",
            },
            {"type": "function_call_output", "call_id": "call_1", "output": "Makefile"},
            {
                "type": "function_call_output",
                "call_id": "call_2",
                "output": [{"type": "input_text", "text": "all:"}],
            },
            {
                "type": "custom_tool_call",
                "status": "completed",
                "call_id": "call_3",
                "name": "apply_patch",
                "input": "*** Begin Patch\n",
            },
            {"type": "custom_tool_call_output", "call_id": "call_3", "output": "Done"},
        ],
        "tools": [SHELL, APPLY_PATCH, FILES, WEB_SEARCH],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0198",
        "text": {"verbosity": "low"},
        "client_metadata": {"x": "y"},
    }


def everything() -> dict[str, Any]:
    """A body that uses each field that is translated, for mutations."""
    return {
        **codex(),
        "max_output_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_logprobs": 2,
        "include": ["message.output_text.logprobs"],
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": True}},
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "required",
            "tools": [{"type": "function", "name": "shell"}],
        },
        "metadata": {"a": "b"},
        "chat_template_kwargs": {"k": 1},
        "input": [
            *codex()["input"],
            {"role": "user", "content": [{"type": "input_image", "image_url": "data:,x"}]},
            {"type": "local_shell_call", "call_id": "c9", "action": {"command": ["ls"]}},
            {"type": "local_shell_call_output", "id": "c9", "output": "x"},
            {"type": "additional_tools", "role": "developer", "tools": [{**SHELL, "name": "t"}]},
        ],
    }
