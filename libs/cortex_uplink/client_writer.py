"""An answer written straight onto a client's connection, in as few calls as there can be.

It takes over from Sanic between the request's last byte and the answer's, and leaves the connection
as Sanic expects it. Writing never waits: whoever writes asks whether the client has `enough`.
"""

from collections.abc import Awaitable, Mapping
from http import HTTPStatus
from typing import Any

from sanic import Request
from sanic.http import Stage

#: A client that has so much before it gets no more for now; where Sanic has its own bound.
MAX_UNSENT_BYTES = 64 * 1024
_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class ClientWriter:
    """The one answer to one request: `whole`, or `open`, `write` and `end`."""

    __slots__ = ("_http", "_protocol", "_transport", "opened")

    def __init__(self, request: Request) -> None:
        http: Any = request.stream
        self._http = http
        self._protocol = http.protocol
        self._transport: Any = request.transport
        self.opened = False

    @property
    def crowded(self) -> bool:
        """The client has more before it than it took so far."""
        return bool(self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES)

    def enough(self) -> Awaitable[object] | None:
        """Return what to wait for before more is written; None when the client takes more."""
        # Sanic waits here until the client took some, and raises if it went away instead.
        return self._protocol.send(b"") if self.crowded else None

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Write all of an answer."""
        length = b"content-length: %d\r\n\r\n" % len(body)
        self._put(_head(status, headers, keep_alive=self._http.keep_alive) + length + body)
        self._leave()

    def open(self, headers: Mapping[str, str]) -> None:
        """Write the head of a stream with status 200."""
        self.opened = True
        self._http.stage = Stage.RESPONSE
        head = _head(HTTPStatus.OK, headers, keep_alive=self._http.keep_alive)
        self._put(head + b"transfer-encoding: chunked\r\n\r\n")

    def write(self, data: bytes) -> None:
        """Write some of a stream."""
        if data:
            self._put(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        """Write the end of a stream."""
        self._put(b"0\r\n\r\n")
        self._leave()

    def _put(self, data: bytes) -> None:
        # A client that is gone has its handler cancelled before long.
        if not self._transport.is_closing():
            self._transport.write(data)

    def _leave(self) -> None:
        self._http.response_func = None
        self._http.stage = Stage.IDLE


def _head(status: int, headers: Mapping[str, str], *, keep_alive: bool) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    kept = b"keep-alive" if keep_alive else b"close"
    return b"HTTP/1.1 %d %b\r\n%bconnection: %b\r\n" % (
        status,
        _PHRASES.get(status, b"Unknown"),
        lines.encode("latin-1"),
        kept,
    )
