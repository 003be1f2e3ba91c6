"""An answer written straight onto a client's connection, in as few calls as there can be.

Writing never waits: whoever writes asks whether the client has `enough`.
"""

from collections.abc import Awaitable, Mapping
from functools import lru_cache
from http import HTTPStatus

from cortex_uplink.client_request import ClientRequest

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class ClientWriter:
    """The one answer to one request: `whole`, or `open`, `write` and `end`."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_put_in",
        "_request",
        "_to_head",
        "_transport",
        "_write",
        "opened",
        "silent",
    )

    def __init__(self, request: ClientRequest) -> None:
        self._request = request
        self._connection = request.connection
        self._transport = request.connection.transport
        self._put_in = request.connection.batch.put
        self._write = self._transport.write
        self._to_head = request.method == "HEAD"
        # Before HTTP/1.1 only the connection's end can tell the end of a stream.
        self._chunked = request.modern and not self._to_head
        self.opened = False
        #: Nothing was written since somebody last set this.
        self.silent = True

    @property
    def crowded(self) -> bool:
        """The client has more before it than it took so far."""
        return self._connection.crowded

    def enough(self) -> Awaitable[object] | None:
        """Return what to wait for before more is written; None when the client takes more."""
        return self._connection.taken()

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Write all of an answer."""
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        head = _start(status, keep_alive=self._request.keep_alive) + lines.encode("latin-1")
        if status in _BODILESS:
            head, body = head + b"\r\n", b""
        else:
            head += b"content-length: %d\r\n\r\n" % len(body)
        self._put(head if self._to_head else head + body)
        self._connection.answered = True

    def open(self, headers: Mapping[str, str], status: int = HTTPStatus.OK) -> None:
        """Write the head of a stream."""
        self.opened = True
        request = self._request
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if request.modern:
            lines += "transfer-encoding: chunked\r\n"
        else:
            request.keep_alive = False
        self._put(_start(status, keep_alive=request.keep_alive) + f"{lines}\r\n".encode("latin-1"))

    def write(self, data: bytes) -> Awaitable[object] | None:
        """Write some of a stream; return what `enough` would."""
        # On the path of every chunk. A client that is gone has its handler cancelled before long.
        self.silent = False
        if data and self._chunked:
            self._put_in(self._write, b"%x\r\n%b\r\n" % (len(data), data))
        elif data and not self._to_head:
            self._put_in(self._write, data)
        return self._connection.taken() if self._connection.crowded else None

    def write_chunks(self, data: bytes) -> bool:
        """Write whole chunks as they are; False, and nothing is written, when they may not be."""
        if self._connection.crowded or not self.opened or not self._chunked:
            return False
        self.silent = False
        self._put_in(self._write, data)
        return True

    def end(self) -> None:
        """Write the end of a stream."""
        if self._chunked:
            self._put(b"0\r\n\r\n")
        self._connection.answered = True

    def _put(self, data: bytes) -> None:
        self._connection.answering = True
        if not self._transport.is_closing():
            self._put_in(self._write, data)


@lru_cache(128)
def _start(status: int, *, keep_alive: bool) -> bytes:
    kept = "keep-alive" if keep_alive else "close"
    phrase = _PHRASES.get(status, "Unknown")
    return f"HTTP/1.1 {status} {phrase}\r\nconnection: {kept}\r\n".encode()
