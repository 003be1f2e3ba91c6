"""A failure as clients of each dialect know it: one table, used for answers and for streams."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

CONTEXT_LENGTH_EXCEEDED: Final = "context_length_exceeded"
#: A client that hears this sends its whole conversation again.
THREAD_NOT_FOUND: Final = "thread_not_found"

#: What Anthropic calls a status; its SDKs choose the exception by the status, people by the type.
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Envelope(Enum):
    """Whose error bodies a client reads."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What went wrong, in OpenAI's words. `extra` holds diagnostics that are safe to show."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, error: Mapping[str, Any]) -> "Failure":
        """Return the error object of a node's stream, lenient about what it leaves out."""
        kind = error.get("type")
        known = kind if isinstance(kind, str) else "api_error"
        code, param = error.get("code"), error.get("param")
        return cls(
            status=_STATUS_OF_TYPE.get(known, 500),
            type=known,
            message=str(error.get("message") or "the engine failed"),
            code=code if isinstance(code, str) else None,
            param=param if isinstance(param, str) else None,
            extra={k: v for k, v in error.items() if k not in _NAMED},
        )


_NAMED = frozenset({"message", "type", "code", "param"})
_STATUS_OF_TYPE = {"invalid_request_error": 400, "rate_limit_error": 429}


def render(failure: Failure, envelope: Envelope, request_id: str) -> dict[str, Any]:
    """Return the error body of a dialect."""
    if envelope is Envelope.ANTHROPIC:
        error: dict[str, Any] = {
            "type": anthropic_type(failure),
            "message": anthropic_message(failure),
        }
        if failure.code == THREAD_NOT_FOUND:
            error["details"] = {"error_code": failure.code}
        return {"type": "error", "error": error, "request_id": request_id}
    return {
        "error": {
            "message": failure.message,
            "type": failure.type,
            "code": failure.code,
            "param": failure.param,
            **failure.extra,
        }
    }


def anthropic_type(failure: Failure) -> str:
    """Return Anthropic's word for a failure."""
    return _ANTHROPIC_TYPES.get(failure.status, "api_error")


def anthropic_message(failure: Failure) -> str:
    """Return the message, in the sentence that Anthropic's clients know where there is one."""
    if failure.code == CONTEXT_LENGTH_EXCEEDED:
        limit, prompt = failure.extra.get("max"), failure.extra.get("prompt_len")
        if limit is not None and prompt is not None:
            return f"prompt is too long: {prompt} tokens > {limit} maximum"
        if found := re.search(r"maximum context length is (\d+) tokens", failure.message):
            return f"prompt is too long: more than {found[1]} maximum"
    return failure.message
