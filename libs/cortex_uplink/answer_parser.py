"""The answering half of HTTP/1.1 as a machine without I/O: bytes in, body bytes out.

What a proxy must not be lax about it is not: a head is read whole and only up to a bound, and an
answer whose length could be understood in two ways is refused. How the bytes are cut never changes
what they mean.
"""

import re
from enum import Enum, auto

from cortex_uplink.chunk_decoder import ChunkDecoder, MalformedChunks
from cortex_uplink.errors import MalformedAnswer
from cortex_uplink.head_lines import MalformedHead, split_field, split_head

#: All heads of one answer together, those of its 1xx included.
MAX_HEAD_BYTES = 64 * 1024
MAX_STATUS_LINE_BYTES = 8 * 1024
MAX_HEADERS = 256
_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = re.compile(r"[0-9]{1,18}")
#: What may not be said when the body is over.
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "host"})
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([0-9]{3})(?: .*)?")
_STATUS_LINES = {"HTTP/1.1 200 OK": (200, True)}
_SWITCHING, _OK, _NO_CONTENT, _NOT_MODIFIED = 101, 200, 204, 304


class _Body(Enum):
    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()


class AnswerParser:
    """One answer. Feed it until `complete`; what comes after that is `excess`."""

    __slots__ = (
        "_body",
        "_chunks",
        "_head",
        "_head_bytes",
        "_left",
        "_to_head",
        "begun",
        "complete",
        "excess",
        "headers",
        "keep_alive",
        "status",
        "trailers",
    )

    def __init__(self, *, to_head: bool = False) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        #: What came after a chunked body.
        self.trailers: list[tuple[str, str]] = []
        #: The final head is there, the 1xx before it are not told.
        self.begun = False
        self.complete = False
        #: There was more than the answer: nobody knows what the connection says next.
        self.excess = False
        #: The other side will take another request when this answer is complete.
        self.keep_alive = False
        self._to_head = to_head
        self._head = b""
        self._head_bytes = 0
        self._body = _Body.NONE
        self._left = 0
        self._chunks: ChunkDecoder | None = None

    @property
    def between_chunks(self) -> bool:
        """The next byte begins a chunk."""
        return self._chunks is not None and not self.complete and self._chunks.between

    def feed(self, data: bytes) -> bytes:
        """Take bytes and return what they have of the body. Raises MalformedAnswer."""
        if not self.begun:
            return self._feed_head(data)
        if self.complete:
            self.excess = self.excess or bool(data)
            return b""
        if (chunks := self._chunks) is not None:
            parts: list[bytes] = []
            try:
                rest = chunks.feed(data, parts)
            except MalformedChunks as error:
                raise MalformedAnswer(str(error)) from None
            if rest is not None:
                if chunks.trailers:
                    self._take_trailers(chunks.trailers)
                self.complete, self.excess = True, bool(rest)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        return self._feed_length(data) if self._body is _Body.LENGTH else data

    def _take_trailers(self, raw: bytes) -> None:
        try:
            self.trailers = _trailers(raw)
        except MalformedHead as error:
            raise MalformedAnswer(str(error)) from None

    def finish(self) -> str:
        """Take the end of the connection; return what was missing when it is not the answer's."""
        if self.begun and self._body is _Body.UNTIL_CLOSE:
            self.complete = True
        if self.complete:
            return ""
        return f"the connection ended before the {'body' if self.begun else 'head'} did"

    def _feed_head(self, data: bytes) -> bytes:
        data = self._head + data if self._head else data
        while not self.begun:
            end = data.find(_END_OF_HEAD)
            size = len(data) if end < 0 else end + len(_END_OF_HEAD)
            if self._head_bytes + size > MAX_HEAD_BYTES:
                raise MalformedAnswer(f"a head of more than {MAX_HEAD_BYTES} bytes")
            if not data.startswith(_VERSIONS) and not _could_begin(data):
                raise MalformedAnswer("not an HTTP/1 answer")
            if end < 0:
                # Lines that end in a bare LF never get to an end: say so now, do not wait for it.
                if b"\n\n" in data:
                    raise MalformedAnswer("lines must end in CR LF")
                self._head = data
                return b""
            self._head_bytes += size
            self._read_head(data[:end])
            data = data[size:]
        self._head = b""
        return self.feed(data) if data else b""

    def _read_head(self, head: bytes) -> None:
        try:
            first, *lines = split_head(head)
            status, modern = _status_line(first)
            fields = [split_field(line) for line in lines]
        except MalformedHead as error:
            raise MalformedAnswer(str(error)) from None
        if len(first) > MAX_STATUS_LINE_BYTES or len(lines) > MAX_HEADERS:
            raise MalformedAnswer("a status line too long, or too many headers")
        if status < _OK:
            if status < 100 or status == _SWITCHING:  # noqa: PLR2004  # not a 1xx
                raise MalformedAnswer(f"a status {status:03} that nothing has asked for")
            return
        self.headers = fields
        self.status = status
        self._decide_framing(modern=modern)
        self.begun = True

    def _feed_length(self, data: bytes) -> bytes:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            return data
        self.complete = True
        if left == 0:
            return data
        self.excess = True
        return data[: self._left]

    def _decide_framing(self, *, modern: bool) -> None:
        length, chunked, options = self._read_framing()
        if chunked and not modern:
            raise MalformedAnswer("chunks in an answer of HTTP/1.0")
        self.keep_alive = "close" not in options and (modern or "keep-alive" in options)
        if self._to_head or self.status in {_NO_CONTENT, _NOT_MODIFIED}:
            self.complete = True
            # Some send a body all the same, later: do not wait for it on this connection.
            if self.status == _NO_CONTENT and (chunked or length):
                self.keep_alive = False
        elif chunked:
            self._body, self._chunks = _Body.CHUNKED, ChunkDecoder()
        elif length is not None:
            self._body, self._left, self.complete = _Body.LENGTH, length, length == 0
        else:
            self._body, self.keep_alive = _Body.UNTIL_CLOSE, False

    def _read_framing(self) -> tuple[int | None, bool, set[str]]:
        """Return content-length, whether it is chunked, and the connection's options."""
        length: int | None = None
        chunked = False
        options: set[str] = set()
        for name, value in self.headers:
            match name:
                case "content-length":
                    if length is not None or not _LENGTH.fullmatch(value):
                        raise MalformedAnswer("a content-length that is not one number")
                    length = int(value)
                case "transfer-encoding":
                    if chunked or value.lower() != "chunked":
                        raise MalformedAnswer("a transfer-encoding other than chunked")
                    chunked = True
                case "connection":
                    options.update(option.strip() for option in value.lower().split(","))
        if chunked and length is not None:
            raise MalformedAnswer("a length told in two ways")
        return length, chunked, options


def _trailers(raw: bytes) -> list[tuple[str, str]]:
    lines = split_head(raw[: -len(b"\r\n")])
    if len(lines) > MAX_HEADERS:
        raise MalformedAnswer(f"more than {MAX_HEADERS} trailers")
    trailers = [split_field(line) for line in lines]
    if any(name in _FRAMING for name, _ in trailers):
        raise MalformedAnswer("a length for a trailer")
    return trailers


def _status_line(line: str) -> tuple[int, bool]:
    """Return the status, and whether it is HTTP/1.1. Raises MalformedHead."""
    if (known := _STATUS_LINES.get(line)) is not None:
        return known
    if (found := _STATUS_LINE.fullmatch(line)) is None:
        raise MalformedHead("not a status line")
    return int(found[2]), found[1] == "1"


def _could_begin(data: bytes) -> bool:
    """Tell whether a short `data` is the start of a status line."""
    return any(version.startswith(data) for version in _VERSIONS)
