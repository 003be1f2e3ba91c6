"""What is asked and what the mock node answers: every byte is known beforehand.

Each content chunk holds `MARK` exactly once, and nothing else does: chunks can be counted in any
dialect, however a proxy writes its JSON and wherever it cuts.
"""

import json
from typing import Any

MODEL = "bench"
#: The same model once more; its streams come at one chunk each `PACE_MS`.
PACED = "bench-paced"
PACE_MS = 20
CHUNKS = 64
MARK = "~"

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
#: What the last bytes of a complete stream hold, by path.
ENDS = {CHAT: "[DONE]", MESSAGES: "message_stop"}

_PROMPT_TOKENS = 57
_CREATED = 1_760_000_000
_SYSTEM = "You are the keeper of a lighthouse. Answer in one short paragraph, and do not ask back."
_USER = "What did the sea look like this morning, and which ships came by?"
_TEXT = "the sea was grey and flat and a slow ship went by under the rain while"
_WORDS = tuple(_TEXT.split())


def body(*, stream: bool, model: str = MODEL, chunks: int = CHUNKS, path: str = CHAT) -> bytes:
    """Return the body of a request in the dialect of `path`."""
    user = {"role": "user", "content": _USER}
    if path == MESSAGES:
        value = {"model": model, "max_tokens": chunks, "system": _SYSTEM, "messages": [user]}
        return json.dumps({**value, "stream": stream}).encode()
    system = {"role": "system", "content": _SYSTEM}
    asked: dict[str, Any] = {"model": model, "messages": [system, user], "max_tokens": chunks}
    if stream:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked).encode()


def text(chunks: int) -> str:
    """Return what a streamed answer of so many chunks says."""
    return "".join(_piece(number) for number in range(chunks))


def whole(model: str) -> bytes:
    """Return an answer that is not streamed, about 600 bytes."""
    content = " ".join(_WORDS * 6)
    choice = {"index": 0, "message": _message(content), "logprobs": None, "finish_reason": "stop"}
    return _json({**_envelope("chat.completion", model), "choices": [choice], "usage": usage(96)})


def content_frame(model: str, number: int) -> bytes:
    """Return the frame of one content chunk."""
    delta: dict[str, Any] = {"content": _piece(number)}
    return _frame(model, [_choice({"role": "assistant", **delta} if number == 0 else delta, None)])


def last_frames(model: str, chunks: int) -> tuple[bytes, ...]:
    """Return what follows the content: finish, usage, end."""
    return (
        _frame(model, [_choice({}, "stop")]),
        _frame(model, [], usage=usage(chunks)),
        b"data: [DONE]\n\n",
    )


def usage(completion: int) -> dict[str, int]:
    """Return the usage of an answer of so many tokens."""
    total = _PROMPT_TOKENS + completion
    return {"prompt_tokens": _PROMPT_TOKENS, "completion_tokens": completion, "total_tokens": total}


def _piece(number: int) -> str:
    return f" {_WORDS[number % len(_WORDS)]}{MARK}"


def _message(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def _choice(delta: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _frame(model: str, choices: list[dict[str, Any]], **more: Any) -> bytes:
    value = {**_envelope("chat.completion.chunk", model), "choices": choices, **more}
    return b"data: %s\n\n" % _json(value)


def _envelope(kind: str, model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-0123456789", "object": kind, "created": _CREATED, "model": model}


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
