"""The answering half of HTTP/1.1 as a machine without I/O: bytes in, body bytes out.

llhttp reads heads and chunks. Around it stands what a proxy must not be lax about: a head is read
whole and only up to a bound, and an answer whose length could be understood in two ways is refused.
How the bytes are cut never changes what they mean.
"""

from enum import Enum, auto

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from cortex_uplink.errors import MalformedAnswer

#: All heads of one answer together, those of its 1xx included.
MAX_HEAD_BYTES = 64 * 1024
MAX_STATUS_LINE_BYTES = 8 * 1024
MAX_HEADERS = 256
#: Chunk headers, extensions and trailers that come without a byte of body in between.
MAX_FRAMING_BYTES = 64 * 1024
_VERSIONS = (b"HTTP/1.1 ", b"HTTP/1.0 ")
_END_OF_HEAD = b"\r\n\r\n"
#: How the last chunk ends, and the byte before it.
_TAIL = 5
_CONTINUE, _SWITCHING, _OK, _NO_CONTENT, _NOT_MODIFIED = 100, 101, 200, 204, 304


class _Body(Enum):
    NONE = auto()
    LENGTH = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()


class AnswerParser:
    """One answer. Feed it until `complete`; what comes after that is `excess`."""

    def __init__(self, *, to_head: bool = False) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.trailers: list[tuple[bytes, bytes]] = []
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
        self._framing_bytes = 0
        self._tail = b""
        self._parts: list[bytes] = []
        self._problem = ""
        self._llhttp = HttpResponseParser(self)

    def feed(self, data: bytes) -> bytes:
        """Take bytes and return what they have of the body. Raises MalformedAnswer."""
        if not self.begun:
            return self._feed_head(data)
        if self.complete:
            self.excess = self.excess or bool(data)
            return b""
        match self._body:
            case _Body.CHUNKED:
                return self._feed_chunks(data)
            case _Body.LENGTH:
                return self._feed_length(data)
            case _:
                return data

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
            self._read_head(data[:size])
            data = data[size:]
        self._head = b""
        return self.feed(data) if data else b""

    def _read_head(self, head: bytes) -> None:
        if head.find(b"\r\n") > MAX_STATUS_LINE_BYTES:
            raise MalformedAnswer(f"a status line of more than {MAX_STATUS_LINE_BYTES} bytes")
        if b"\0" in head:
            raise MalformedAnswer("a NUL in the head")
        self._to_llhttp(head)
        if not self.begun:
            # A head of a 1xx: what it said about the connection must not reach the next one.
            self._llhttp = HttpResponseParser(self)

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

    def _feed_chunks(self, data: bytes) -> bytes:
        size = len(data)
        self._tail = data[-_TAIL:] if size >= _TAIL else (self._tail + data)[-_TAIL:]
        self._to_llhttp(data)
        if self.complete and not _ends_cleanly(self._tail):
            self.excess = True
        parts = self._parts
        if not parts:
            self._framing_bytes += size
            if self._framing_bytes > MAX_FRAMING_BYTES:
                raise MalformedAnswer(f"more than {MAX_FRAMING_BYTES} bytes between two of body")
            return b""
        self._framing_bytes = 0
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return body

    def _to_llhttp(self, data: bytes) -> None:
        try:
            self._llhttp.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            if self.complete:
                self.excess = True
                return
            raise MalformedAnswer(self._problem or str(error)) from None

    def _refuse(self, problem: str) -> MalformedAnswer:
        # llhttp hides what its callbacks raise behind an error of its own.
        self._problem = problem
        return MalformedAnswer(problem)

    # --- what llhttp calls ---

    def on_message_begin(self) -> None:
        """Note that bytes follow the end of the answer."""
        if self.complete:
            self.excess = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, or a trailer when the body has begun."""
        if self.complete:
            return
        fields = self.trailers if self.begun else self.headers
        if len(fields) >= MAX_HEADERS:
            raise self._refuse(f"more than {MAX_HEADERS} headers")
        fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Decide how long the answer is."""
        if self.complete:
            return
        status = self._llhttp.get_status_code()
        if status < _OK:
            if status < _CONTINUE or status == _SWITCHING:
                raise self._refuse(f"a status {status:03} that nothing has asked for")
            self.headers = []
            return
        self.status = status
        self._decide_framing()
        self.begun = True

    def on_body(self, body: bytes) -> None:
        """Collect a piece of a chunk."""
        if not self.complete:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """End the answer, unless it was a 1xx."""
        if self.begun:
            self.complete = True

    def _decide_framing(self) -> None:
        length, chunked, options = self._read_framing()
        modern = self._llhttp.get_http_version() == "1.1"
        if chunked and not modern:
            raise self._refuse("chunks in an answer of HTTP/1.0")
        self.keep_alive = b"close" not in options and (modern or b"keep-alive" in options)
        if self._to_head or self.status in {_NO_CONTENT, _NOT_MODIFIED}:
            self.complete = True
            # Some send a body all the same, later: do not wait for it on this connection.
            if self.status == _NO_CONTENT and (chunked or length):
                self.keep_alive = False
        elif chunked:
            self._body = _Body.CHUNKED
        elif length is not None:
            self._body, self._left, self.complete = _Body.LENGTH, length, length == 0
        else:
            self._body, self.keep_alive = _Body.UNTIL_CLOSE, False

    def _read_framing(self) -> tuple[int | None, bool, set[bytes]]:
        """Return content-length, whether it is chunked, and the connection's options."""
        length: int | None = None
        chunked = False
        options: set[bytes] = set()
        for name, value in self.headers:
            match name.lower():
                case b"content-length":
                    # llhttp has seen that it is one number, and the only one.
                    length = int(value)
                case b"transfer-encoding":
                    if chunked or value.lower() != b"chunked":
                        raise self._refuse("a transfer-encoding other than chunked")
                    chunked = True
                case b"connection":
                    options.update(option.strip() for option in value.lower().split(b","))
        return length, chunked, options


def _could_begin(data: bytes) -> bool:
    """Tell whether a short `data` is the start of a status line."""
    return any(version.startswith(data) for version in _VERSIONS)


def _ends_cleanly(tail: bytes) -> bool:
    """Tell whether the last bytes are a last chunk's, with nothing after them."""
    return tail.endswith(_END_OF_HEAD) and tail[0] not in b"\r\n"
