"""Server-sent events, taken apart without caring where the bytes were cut, and put together.

Lines end in LF, CR or CRLF, a blank line ends a frame, and a byte order mark may come first, as
the HTML standard has it (section 9.2.6).
"""

import re
from typing import Any

from orjson import JSONDecodeError, dumps, loads

#: A line's end and a blank line. A CR that comes last is not taken for one: an LF may follow.
_FRAME_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n|\Z))")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

#: A frame larger than this is an error, never unbounded memory.
MAX_FRAME_BYTES = 16 * 1024 * 1024
#: A frame that says nothing, for streams that must not look dead.
COMMENT_FRAME = b": keep-alive\n\n"
DONE_FRAME = b"data: [DONE]\n\n"


class FrameTooLarge(Exception):
    """A peer sent a frame beyond the limit."""


class FrameSplitter:
    """Cuts a byte stream into complete frames, their blank line included; keeps the open end."""

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max = max_frame_bytes
        self._open = bytearray()
        self._begun = False

    @property
    def between(self) -> bool:
        """The last frame is complete, and the next one has not begun."""
        return self._begun and not self._open

    def first(self, chunk: bytes) -> tuple[bytes, bytes] | None:
        """Return the frame that `chunk` begins with, and the rest; None where `feed` must see it.

        Only told of lines that end in LF, as those of every engine do.
        """
        if self._open or (end := chunk.find(b"\n\n") + 2) < 2 or end > self._max:  # noqa: PLR2004
            return None
        frame = chunk[:end]
        if b"\r" in frame or not (self._begun or frame.startswith((b"data", b":", b"event"))):
            return None
        self._begun = True
        return frame, chunk[end:]

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the frames that `chunk` completes. Raises FrameTooLarge."""
        # The end of a frame may have been cut in two.
        at = max(0, len(self._open) - 3)
        self._open += chunk
        if not self._begun and not self._begin():
            return []
        frames: list[bytes] = []
        start = 0
        while (end := _FRAME_END.search(self._open, max(at, start))) is not None:
            frames.append(bytes(self._open[start : end.end()]))
            start = end.end()
        del self._open[:start]
        if max(map(len, (self._open, *frames))) > self._max:
            raise FrameTooLarge(f"a frame of more than {self._max} bytes")
        return frames

    def finish(self) -> bytes:
        """Return what was left open when the stream ended, and forget it."""
        rest = bytes(self._open)
        self._open.clear()
        return rest

    def _begin(self) -> bool:
        """Take off the byte order mark; False while it may still be on its way."""
        head = bytes(self._open[: len(_BYTE_ORDER_MARK)])
        if head == _BYTE_ORDER_MARK:
            del self._open[: len(_BYTE_ORDER_MARK)]
        elif _BYTE_ORDER_MARK.startswith(head):
            return False
        self._begun = True
        return True


def payload(frame: bytes) -> bytes:
    """Return the joined `data:` lines of a frame; empty for comments and for other fields."""
    if frame.startswith(b"data:") and frame.find(b"\n") >= len(frame) - 2:
        return frame[5:].strip()
    lines = [line[5:].strip() for line in frame.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


def json_payload(frame: bytes) -> dict[str, Any] | None:
    """Return the frame's JSON object, None when it carries something else."""
    data = payload(frame)
    if not data.startswith(b"{"):
        return None
    try:
        value = loads(data)
    except JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def frame_of(value: Any, event: str | None = None) -> bytes:
    """Return `value` as one `data:` frame, under the name of an event where one is given."""
    if event is None:
        return b"data: " + dumps(value) + b"\n\n"
    return b"event: " + event.encode() + b"\ndata: " + dumps(value) + b"\n\n"
