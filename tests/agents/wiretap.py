"""A loopback relay in front of a server that keeps what passes, byte for byte."""

import contextlib
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, `at` seconds after the tap began, and its answer; `status` is 0 if none came."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer: bytes


@dataclass(slots=True)
class _Connection:
    asked: bytearray = field(default_factory=bytearray)
    answered: bytearray = field(default_factory=bytearray)
    times: list[tuple[int, float]] = field(default_factory=list)


class Wiretap:
    """Relays to `host:port`; `seen()` tells what has passed so far."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._connections: list[_Connection] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self._began = time.monotonic()
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def seen(self) -> list[Seen]:
        """Return the requests in the order in which they began."""
        return sorted(
            (one for connection in self._connections for one in _exchanges(connection)),
            key=lambda one: one.at,
        )

    def run(self) -> None:
        """Relay until `close`."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _relay(self, client: socket.socket) -> None:
        connection = _Connection()
        self._connections.append(connection)
        with client, socket.create_connection(self._upstream) as server:
            back = threading.Thread(
                target=_pump, args=(server, client, connection.answered.extend), daemon=True
            )
            back.start()

            def note(data: bytes) -> None:
                connection.times.append((len(connection.asked), time.monotonic() - self._began))
                connection.asked.extend(data)

            _pump(client, server, note)
            back.join()


@contextmanager
def wiretap(port: int) -> Iterator[Wiretap]:
    """A tap in front of a loopback port."""
    tap = Wiretap(port)
    thread = threading.Thread(target=tap.run)
    thread.start()
    try:
        yield tap
    finally:
        tap.close()
        thread.join()


def _pump(source: socket.socket, sink: socket.socket, note: Callable[[bytes], None]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            note(data)
            sink.sendall(data)
    for end, way in ((source, socket.SHUT_RD), (sink, socket.SHUT_WR)):
        with contextlib.suppress(OSError):
            end.shutdown(way)


def _exchanges(connection: _Connection) -> Iterator[Seen]:
    asked, answered = io.BytesIO(bytes(connection.asked)), _Answers(bytes(connection.answered))
    while True:
        start = asked.tell()
        line = asked.readline().decode("latin-1").split(" ")
        if len(line) != 3:  # method, path, version
            return
        headers = http.client.parse_headers(asked)
        if "transfer-encoding" in headers:
            raise NotImplementedError("a request in chunks")
        body = asked.read(int(headers.get("content-length", "0")))
        at = max(moment for position, moment in connection.times if position <= start)
        status, answer = answered.take(line[0])
        named = {name.lower(): value for name, value in headers.items()}
        yield Seen(at, line[0], line[1], named, body, status, answer)


class _Answers:
    """Reads answers one after the other; plays the socket that `http.client` wants."""

    def __init__(self, raw: bytes) -> None:
        self._file = io.BytesIO(raw)
        self._file.close = lambda: None  # type: ignore[method-assign]  # more answers follow

    def makefile(self, _: str) -> io.BytesIO:
        return self._file

    def take(self, method: str) -> tuple[int, bytes]:
        response = http.client.HTTPResponse(cast("socket.socket", self), method=method)
        try:
            response.begin()
            return response.status, response.read()
        except http.client.IncompleteRead as cut:
            return response.status, cut.partial
        except http.client.HTTPException:
            return 0, b""
