"""Streams as engines send them, for tests."""

from typing import Any

from orjson import dumps


def frame(value: Any) -> bytes:
    """One data frame."""
    return b"data: " + dumps(value) + b"\n\n"


def delta(text: str | None, **more: Any) -> dict[str, Any]:
    """One chat chunk."""
    choice = {"index": 0, "delta": {"content": text} if text is not None else {}, **more}
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "m",
        "choices": [{"finish_reason": None, **choice}],
    }


ROLE = {
    "id": "c1",
    "object": "chat.completion.chunk",
    "created": 7,
    "model": "m",
    "choices": [
        {"index": 0, "delta": {"role": "assistant", "content": None}, "finish_reason": None}
    ],
}
USAGE = {
    "id": "c1",
    "object": "chat.completion.chunk",
    "created": 7,
    "model": "m",
    "choices": [],
    "usage": {
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 3},
    },
}
DONE = b"data: [DONE]\n\n"
HELLO = (
    frame(ROLE)
    + b": keep-alive\n\n"
    + frame(delta("Hel"))
    + frame(delta("lo"))
    + frame(delta(None, finish_reason="stop"))
    + frame(USAGE)
    + DONE
)
