"""A node that costs next to nothing: it answers from prepared bytes.

    python -m tests.bench.peers.mock_node PORT

It speaks a node's contract for cortex, what the other routers ask a worker, and chat completions:
whole, or a stream of as many content chunks as `max_tokens` says. Chunks of `bench-paced` come one
each 20 ms. Those of `bench` come at once, but as an engine makes them: a step gives every stream
its next chunk, and each chunk is a write of its own.
"""

import asyncio
import os
import re
import sys
from collections import deque
from collections.abc import Iterator
from itertools import cycle
from typing import cast

import orjson
import uvloop

from tests.bench.peers import payloads
from tests.bench.peers.payloads import CHAT, MODEL, PACE_MS, PACED
from tests.bench.peers.tree import raise_open_files

_MAX_IN_FLIGHT = 100_000
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_IS_PACED = re.compile(rb'"model"\s*:\s*"[a-z/]*%s"' % PACED.encode())
_CHUNKS = re.compile(rb'"max_(?:completion_)?tokens"\s*:\s*(\d+)')
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _answer(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
    return head % (status, len(body), body)


def _chunk(frame: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(frame), frame)


def _says() -> dict[bytes, bytes]:
    rows = [
        {"id": name, "status": "loaded", "devices": [0], "max_in_flight": _MAX_IN_FLIGHT}
        for name in (MODEL, PACED)
    ]
    loads = [{"id": row["id"], "max_in_flight": _MAX_IN_FLIGHT} for row in rows]
    device = {"index": 0, "name": "mock", "vram_total_mb": 24576}
    free = {"index": 0, "vram_used_mb": 1024, "vram_free_mb": 23552}
    owned = {"object": "model", "created": 1, "owned_by": "mock"}
    values = {
        "/discovery": {"hostname": "mock", "boot_id": "b1", "devices": [device]},
        "/health": {"uptime_secs": 1, "devices": [free], "models": loads},
        "/models": rows,
        "/v1/models": {"object": "list", "data": [{"id": row["id"], **owned} for row in rows]},
        "/get_model_info": {"model_path": MODEL, "is_generation": True},
        "/model_info": {"model_path": MODEL, "is_generation": True},
        "/get_server_info": {"model_path": MODEL, "served_model_name": MODEL, "version": "1"},
        "/server_info": {"model_path": MODEL, "served_model_name": MODEL, "version": "1"},
        "/version": {"version": "1"},
    }
    return {path.encode(): _answer(b"200 OK", orjson.dumps(one)) for path, one in values.items()}


_SAYS = _says()
_UNKNOWN = _answer(b"404 Not Found", b'{"error":{"message":"no such route"}}')
_WHOLE = {name: _answer(b"200 OK", payloads.whole(name)) for name in (MODEL, PACED)}
_CONTENT = {
    name: [_chunk(payloads.content_frame(name, number)) for number in range(1 + payloads.CHUNKS)]
    for name in (MODEL, PACED)
}


class Answering:
    """One stream on its way out: gives up its next write until it is over."""

    def __init__(self, connection: "Connection", model: str, chunks: int) -> None:
        self.connection = connection
        self._writes = self._frames(model, chunks)

    def step(self) -> bool:
        """Write the next chunk. False when the stream is over, or its client gone."""
        connection = self.connection
        if connection.transport is None:
            return False
        for write in self._writes:
            connection.write(write)
            return True
        connection.next_request()
        return False

    @staticmethod
    def _frames(model: str, chunks: int) -> Iterator[bytes]:
        content = _CONTENT[model]
        yield _STREAM_HEAD + content[0]
        # The first says the role too; the rest are the words over and over.
        rest = cycle(content[1:])
        for _ in range(chunks - 2):
            yield next(rest)
        last = next(rest) if chunks > 1 else b""
        ends = b"".join(_chunk(frame) for frame in payloads.last_frames(model, chunks))
        yield last + ends + b"0\r\n\r\n"


class Pacing:
    """Gives every stream its next chunk each 20 ms, in one of 20 turns a millisecond apart."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._turns: list[list[Answering]] = [[] for _ in range(PACE_MS)]
        self._tick = 0
        self._began = loop.time()
        self._next()

    def add(self, stream: Answering) -> None:
        """Begin a stream: its first chunk at once."""
        if stream.step():
            self._turns[(self._tick - 1) % PACE_MS].append(stream)

    def _next(self) -> None:
        turn = self._tick % PACE_MS
        self._turns[turn] = [stream for stream in self._turns[turn] if stream.step()]
        self._tick += 1
        self._loop.call_at(self._began + self._tick / 1000, self._next)


class Stepping:
    """Gives every stream its next chunk as fast as it goes, all in step."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._streams: deque[Answering] = deque()
        self._stepping = False

    def add(self, stream: Answering) -> None:
        """Begin a stream."""
        self._streams.append(stream)
        if not self._stepping:
            self._stepping = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        for _ in range(len(self._streams)):
            stream = self._streams.popleft()
            if stream.step():
                self._streams.append(stream)
        self._stepping = bool(self._streams)
        if self._stepping:
            self._loop.call_soon(self._step)


class Connection(asyncio.Protocol):
    """One client: requests in, one after the other, prepared bytes out."""

    def __init__(self, pacing: Pacing, stepping: Stepping) -> None:
        self.transport: asyncio.Transport | None = None
        self._pacing = pacing
        self._stepping = stepping
        self._pending = b""
        self._busy = False
        self._file = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class
        self._file = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop writing."""
        self.transport = None

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._pending += data
        if not self._busy:
            self.next_request(idle=True)

    def write(self, data: bytes) -> None:
        """Send now: a write of its own, past the transport unless that still holds something."""
        transport = self.transport
        assert transport is not None
        if not transport.get_write_buffer_size():
            try:
                sent = os.write(self._file, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                transport.abort()
                return
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def next_request(self, *, idle: bool = False) -> None:
        """Answer what is pending; a stream makes the rest wait."""
        self._busy = False
        while self.transport is not None and (taken := self._take()) is not None:
            path, body = taken
            if path != CHAT.encode():
                self.write(_SAYS.get(path, _UNKNOWN))
                continue
            model = PACED if _IS_PACED.search(body) else MODEL
            if not _STREAM.search(body):
                self.write(_WHOLE[model])
                continue
            asked = _CHUNKS.search(body)
            stream = Answering(self, model, int(asked[1]) if asked else payloads.CHUNKS)
            self._busy = True
            (self._pacing if model == PACED else self._stepping).add(stream)
            return

    def _take(self) -> tuple[bytes, bytes] | None:
        """Take one request off what has arrived: its path and its body."""
        head, end, rest = self._pending.partition(_HEAD_END)
        if not end:
            return None
        if length := _LENGTH.search(head):
            size = int(length[1])
            if len(rest) < size:
                return None
            body, self._pending = rest[:size], rest[size:]
        elif _CHUNKED.search(head):
            body, end, after = rest.partition(b"0\r\n\r\n")
            if not end:
                return None
            self._pending = after
        else:
            body, self._pending = b"", rest
        return head.split(b" ", 2)[1].partition(b"?")[0], body


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    pacing, stepping = Pacing(loop), Stepping(loop)
    server = await loop.create_server(
        lambda: Connection(pacing, stepping), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    raise_open_files()
    uvloop.run(_serve(int(sys.argv[1])))
