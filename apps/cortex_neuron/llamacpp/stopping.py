"""Which stop string ended an answer: llama.cpp knows, and tells when it is asked for its insides.

OpenAI's answers do not say it, but other dialects need it. A choice that ended on a stop string of
the request carries `stop_reason` beside `finish_reason`. llama.cpp's own field for that, and all
else that comes along with it, ends here.
"""

from collections.abc import Collection
from typing import Any

from cortex_dialects import FrameSplitter, frame_of, json_payload

_INSIDES = "__verbose"
_MARK = f'"{_INSIDES}"'.encode()

#: What a request says to be told, and to be told no more than that.
ASK: dict[str, Any] = {"verbose": True, "response_fields": ["stopping_word"]}


class StopReasons:
    """The stream of a request that said `ASK`, with `stop_reason` in place of the answer."""

    def __init__(self, stops: Collection[str]) -> None:
        self._stops = stops
        self._frames = FrameSplitter()

    def feed(self, data: bytes) -> bytes:
        """Return the frames that `data` completes. Raises FrameTooLarge."""
        return b"".join([self._frame(frame) for frame in self._frames.feed(data)])

    def finish(self) -> bytes:
        """Return what was left open when the stream ended."""
        return self._frame(self._frames.finish())

    def _frame(self, frame: bytes) -> bytes:
        # Inside a text the mark would have a backslash before its second quote.
        value = json_payload(frame) if _MARK in frame else None
        if value is None:
            return frame
        insides = value.pop(_INSIDES, None)
        word = insides.get("stopping_word") if isinstance(insides, dict) else None
        told = isinstance(word, str) and word in self._stops
        choices = value.get("choices")
        for choice in choices if told and isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("finish_reason") == "stop":
                choice["stop_reason"] = word
        return frame_of(value)
