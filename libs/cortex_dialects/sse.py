"""Server-sent events, taken apart without caring where the bytes were cut."""

import re

from orjson import JSONDecodeError, loads

_FRAME_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")

#: A frame larger than this is an error, never unbounded memory.
MAX_FRAME_BYTES = 16 * 1024 * 1024


class FrameTooLarge(Exception):
    """A peer sent a frame beyond MAX_FRAME_BYTES."""


class FrameSplitter:
    """Cuts a byte stream into complete frames, their blank line included; keeps the open end."""

    def __init__(self) -> None:
        self._open = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the frames that `chunk` completes. Raises FrameTooLarge."""
        data = self._open + chunk if self._open else chunk
        frames: list[bytes] = []
        start = 0
        for end in _FRAME_END.finditer(data):
            frames.append(data[start : end.end()])
            start = end.end()
        self._open = data[start:]
        if len(self._open) > MAX_FRAME_BYTES:
            raise FrameTooLarge(f"a frame of more than {MAX_FRAME_BYTES} bytes")
        return frames

    def finish(self) -> bytes:
        """Return what was left open when the stream ended, and forget it."""
        rest, self._open = self._open, b""
        return rest


def payload(frame: bytes) -> bytes:
    """Return the joined `data:` lines of a frame; empty for comments and for other fields."""
    if frame.startswith(b"data:") and frame.find(b"\n") >= len(frame) - 2:
        return frame[5:].strip()
    lines = [line[5:].strip() for line in frame.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines)


def json_payload(frame: bytes) -> dict[str, object] | None:
    """Return the frame's JSON object, None when it carries something else."""
    data = payload(frame)
    if not data.startswith(b"{"):
        return None
    try:
        value = loads(data)
    except JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None
