"""Which stop string ended an answer: llama.cpp knows, and tells when it is asked for its insides.

OpenAI's answers do not say it, but other dialects need it. A choice that ended on a stop string of
the request carries `stop_reason` beside `finish_reason`. llama.cpp's own field for that, and all
else that comes along with it, ends here.
"""

from collections.abc import AsyncIterator, Collection
from typing import Any

from cortex_dialects import FrameSplitter, frame_of, json_payload

_INSIDES = "__verbose"
_MARK = f'"{_INSIDES}"'.encode()

#: What a request says to be told, and to be told no more than that.
ASK: dict[str, Any] = {"verbose": True, "response_fields": ["stopping_word"]}


async def with_stop_reasons(
    chunks: AsyncIterator[bytes], stops: Collection[str]
) -> AsyncIterator[bytes]:
    """Yield the stream of a request that said `ASK`, with `stop_reason` in place of the answer."""
    frames = FrameSplitter()
    async for chunk in chunks:
        if out := b"".join(_frame(frame, stops) for frame in frames.feed(chunk)):
            yield out
    if rest := frames.finish():
        yield _frame(rest, stops)


def _frame(frame: bytes, stops: Collection[str]) -> bytes:
    # Inside a text the mark would have a backslash before its second quote.
    value = json_payload(frame) if _MARK in frame else None
    if value is None:
        return frame
    insides = value.pop(_INSIDES, None)
    word = insides.get("stopping_word") if isinstance(insides, dict) else None
    told = isinstance(word, str) and word in stops
    choices = value.get("choices")
    for choice in choices if told and isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("finish_reason") == "stop":
            choice["stop_reason"] = word
    return frame_of(value)
