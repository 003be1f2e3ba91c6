"""What a Responses request may ask for and cannot have, or says in a way that has no meaning."""

from typing import Any

import pytest

from cortex_dialects import BadBody
from cortex_dialects.responses import to_chat
from tests.libs.cortex_dialects.responses.bodies import APPLY_PATCH, SHELL, WEB_SEARCH

DEEP: Any = {}
for _ in range(300):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        (
            {"previous_response_id": "resp_1"},
            "previous_response_id_unsupported",
            "previous_response_id",
        ),
        ({"conversation": "conv_1"}, "conversation_unsupported", "conversation"),
        ({"background": True}, "background_unsupported", "background"),
        ({"prompt": {"id": "p"}}, "prompt_unsupported", "prompt"),
        ({"input": None}, "missing_input_field", "input"),
        ({"input": []}, "invalid_request_body", "input"),
        ({"input": 5}, "invalid_request_body", "input"),
        ({"input": ["x"]}, "invalid_request_body", "input[0]"),
        ({"input": [{"role": "robot"}]}, "invalid_request_body", "input[0].role"),
        ({"input": [{"id": "msg_1"}]}, "item_reference_unsupported", "input[0]"),
        (
            {"input": [{"type": "item_reference", "id": "m"}]},
            "item_reference_unsupported",
            "input[0]",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
            "unsupported_content",
            "input[0].content[0]",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "unsupported_content",
            "input[0].content[0].file_id",
        ),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "image_url": "u"}]}]},
            "unsupported_content",
            "input[0].content",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "1"}]},
            "invalid_request_body",
            "input[0].name",
        ),
        (
            {"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": DEEP}]},
            "invalid_request_body",
            "input[0].arguments",
        ),
        ({"max_output_tokens": "5"}, "invalid_request_body", "max_output_tokens"),
        ({"max_output_tokens": 1.5}, "invalid_request_body", "max_output_tokens"),
        ({"temperature": True}, "invalid_request_body", "temperature"),
        ({"reasoning": "high"}, "invalid_request_body", "reasoning"),
        ({"text": {"format": {"type": "xml"}}}, "invalid_request_body", "text.format.type"),
        (
            {"text": {"format": {"type": "json_schema", "name": "n"}}},
            "invalid_request_body",
            "text.format.schema",
        ),
        ({"tools": [{"type": "function"}]}, "invalid_request_body", "tools[0].name"),
        ({"tools": ["x"]}, "invalid_request_body", "tools[0]"),
        (
            {"tools": [{**APPLY_PATCH, "format": {"type": "grammar", "syntax": "peg"}}]},
            "invalid_request_body",
            "tools[0].format.syntax",
        ),
        ({"tool_choice": "always"}, "invalid_request_body", "tool_choice"),
        ({"tool_choice": "required"}, "unsupported_tool", "tool_choice"),
        (
            {"tools": [WEB_SEARCH], "tool_choice": "required"},
            "unsupported_tool",
            "tools[0]",
        ),
        (
            {"tools": [SHELL, WEB_SEARCH], "tool_choice": {"type": "web_search"}},
            "unsupported_tool",
            "tools[1]",
        ),
        (
            {"tools": [SHELL], "tool_choice": {"type": "function", "name": "g"}},
            "invalid_request_body",
            "tool_choice",
        ),
        ({"input": [{"type": "compaction"}]}, "compaction_unsupported", "input[0]"),
        ({"tools": [SHELL, {"type": "file_search"}]}, "unsupported_tool", "tools[1]"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "unsupported_tool", "tools[0]"),
        ({"metadata_of_mine": DEEP}, "invalid_request_body", None),
    ],
)
def test_what_cannot_be_done_is_refused(
    given: dict[str, Any], code: str, param: str | None
) -> None:
    """A client learns what is wrong and where, instead of getting less than it asked for."""
    with pytest.raises(BadBody) as refused:
        to_chat({"model": "m", "input": "x", **given})

    assert (refused.value.code, refused.value.param) == (code, param)
