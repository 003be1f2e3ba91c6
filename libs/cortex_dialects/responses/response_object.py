"""The `response` object: what an answer says of itself and repeats of its request."""

from collections.abc import Mapping
from typing import Any, Final

from cortex_dialects.failure import CONTEXT_LENGTH_EXCEEDED, Failure
from cortex_dialects.responses.tool_choice import unwrapped
from cortex_dialects.responses.tools import ToolTable
from cortex_dialects.usage import Usage

#: Why an answer is incomplete, by a completion's finish reason.
INCOMPLETE_REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_TOO_MANY: Final = 429
_CLIENT_ERRORS: Final = range(400, 500)


def empty_response(
    response_id: str, model: str, created_at: int, request: Mapping[str, Any], tools: ToolTable
) -> dict[str, Any]:
    """Return the object of an answer that has just begun. `created_at` is in Unix seconds."""
    reasoning = _object(request, "reasoning")
    text = _object(request, "text")
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": _known(request, "instructions", str),
        "max_output_tokens": _known(request, "max_output_tokens", int),
        "max_tool_calls": None,
        "metadata": _metadata(request),
        "model": model,
        "output": [],
        "parallel_tool_calls": request.get("parallel_tool_calls") is not False,
        "previous_response_id": None,
        "prompt_cache_key": _known(request, "prompt_cache_key", str),
        "reasoning": {
            "effort": _known(reasoning, "effort", str),
            "summary": _known(reasoning, "summary", str),
        },
        "safety_identifier": _known(request, "safety_identifier", str),
        "store": False,
        "temperature": _known(request, "temperature", int, float),
        "text": {"format": _object(text, "format") or {"type": "text"}},
        "tool_choice": _tool_choice(request),
        "tools": tools.shown,
        "top_logprobs": _known(request, "top_logprobs", int) or 0,
        "top_p": _known(request, "top_p", int, float),
        "truncation": "disabled",
        "usage": None,
        "user": _known(request, "user", str),
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return token counts in this dialect, where a count that nobody told is zero."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached or 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
        "total_tokens": usage.prompt + usage.completion,
    }


def error_object(failure: Failure) -> dict[str, Any]:
    """Return what went wrong, in the few codes by which clients choose what to do next."""
    return {"code": _error_code(failure), "message": failure.message}


def _tool_choice(request: Mapping[str, Any]) -> Any:
    choice = _known(request, "tool_choice", str, dict)
    return unwrapped(choice) if isinstance(choice, dict) else choice or "auto"


def _error_code(failure: Failure) -> str:
    if failure.code == CONTEXT_LENGTH_EXCEEDED:
        return CONTEXT_LENGTH_EXCEEDED
    if failure.status == _TOO_MANY:
        return "rate_limit_exceeded"
    return "invalid_prompt" if failure.status in _CLIENT_ERRORS else "server_error"


def _object(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] | None = _known(body, name, dict)
    return found or {}


def _known(body: Mapping[str, Any], name: str, *types: type) -> Any:
    value = body.get(name)
    return value if isinstance(value, types) and not isinstance(value, bool) else None


def _metadata(request: Mapping[str, Any]) -> dict[str, str]:
    said = _object(request, "metadata")
    return {key: value for key, value in said.items() if isinstance(value, str)}
