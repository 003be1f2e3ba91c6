"""A client that is nothing but a socket: it may do what no library would, and never waits long."""

import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from orjson import dumps


class Ended(Enum):
    """How the bytes of an answer ended."""

    WHOLE = "whole"
    CUT = "cut"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An answer as it came off the socket. `status` 0: none came."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: Ended = Ended.CUT
    secs: float = 0.0


class _Over(Exception):
    """The other side closed."""


class Wire:
    """One connection. Everything it waits for has to come within `within` seconds of its start."""

    def __init__(self, url: str, within: float = 10.0) -> None:
        where = urlsplit(url)
        assert where.hostname is not None
        assert where.port is not None
        self.host, self.port = where.hostname, where.port
        self._within = within
        self._began = time.monotonic()
        self._buffer = b""
        self.socket = socket.create_connection((self.host, self.port), timeout=within)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close."""
        self.socket.close()

    def reset(self) -> None:
        """Close with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send; a peer that no longer listens is found out when its answer is read."""
        try:
            self.socket.settimeout(self._left())
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def hear(self, word: bytes = b"", tell: Callable[[], None] | None = None) -> Heard:
        """Read one answer to its end, or to that of our patience; `tell` once `word` has come."""
        status, headers, body = 0, dict[str, str](), bytearray()
        ended = Ended.WHOLE
        try:
            status, headers = self._head()
            for part in self._body(headers):
                body += part
                if tell is not None and word in body:
                    tell()
                    tell = None
        except TimeoutError:
            ended = Ended.TIMEOUT
        except (_Over, ConnectionResetError, BrokenPipeError, ValueError):
            ended = Ended.CUT
        secs = time.monotonic() - self._began
        return Heard(status=status, headers=headers, body=bytes(body), ended=ended, secs=secs)

    def hear_until(self, word: bytes) -> bytes:
        """Read until `word` has come. Raises TimeoutError."""
        heard = self._buffer
        while word not in heard:
            heard += self._more()
        self._buffer = b""
        return heard

    def is_over(self) -> bool:
        """Tell whether the other side closes the connection in time, without another word."""
        try:
            self._more()
        except _Over:
            return True
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return False

    def _head(self) -> tuple[int, dict[str, str]]:
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        fields = (line.split(":", 1) for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, value in fields}
        status = int(head[0].split(" ")[1])
        return self._head() if status == 100 else (status, headers)

    def _body(self, headers: Mapping[str, str]) -> Iterator[bytes]:
        if headers.get("transfer-encoding") == "chunked":
            while size := int(self._until(b"\r\n"), 16):
                yield self._exactly(size)
                self._until(b"\r\n")
            self._until(b"\r\n")
        else:
            left = int(headers.get("content-length", "0"))
            while left:
                self._buffer = self._buffer or self._more()
                part, self._buffer = self._buffer[:left], self._buffer[left:]
                left -= len(part)
                yield part

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._buffer += self._more()
        found, self._buffer = self._buffer.split(mark, 1)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._buffer += self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _more(self) -> bytes:
        self.socket.settimeout(self._left())
        if got := self.socket.recv(65536):
            return got
        raise _Over

    def _left(self) -> float:
        left = self._began + self._within - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


def post(path: str, body: object, request_id: str, **more: str) -> bytes:
    """Return the bytes of a request with a JSON body."""
    raw = dumps(body)
    return head(path, request_id, content_length=str(len(raw)), **more) + raw


def head(path: str, request_id: str, **fields: str) -> bytes:
    """Return the head of a request."""
    named = {
        "host": "cortex",
        "content-type": "application/json",
        "x-request-id": request_id,
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode()


@contextmanager
def crowd(url: str, count: int) -> Iterator[list[socket.socket]]:
    """Hold `count` connections open."""
    where = urlsplit(url)
    held: list[socket.socket] = []
    try:
        for _ in range(count):  # one by one, so that those made are closed whatever happens
            held.append(socket.create_connection((where.hostname or "", where.port or 0), 10))  # noqa: PERF401
        yield held
    finally:
        for one in held:
            one.close()
