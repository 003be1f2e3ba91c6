"""A node that keeps the contract on its control routes and breaks it, on demand, on inference.

It lives in a thread with its own event loop and speaks HTTP byte by byte, so that a fault can be
put anywhere: while a connection is accepted, after the request's head, after the request, and
between any two bytes of the answer. Control connections stay well, so that a gateway goes on
believing in the node.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self, TypeAlias, TypeVar

from orjson import dumps, loads

from tests.apps.cortex_gateway.fake_neuron import completion
from tests.libs.cortex_dialects.streams import HELLO

_T = TypeVar("_T")


class At(Enum):
    """When a fault takes over from the node."""

    ACCEPT = "as the connection is accepted"
    HEAD = "after the request's head"
    REQUEST = "after the whole request"


@dataclass(slots=True)
class Turn:
    """One request a fault has to deal with, and what it can do to its sender.

    `number` counts the requests of its connection; one that is `kept` gets another. `heard` is set
    once the client has the first words of a stream.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: dict[str, Any] = field(default_factory=dict)
    number: int = 0
    kept: bool = False
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def stream(self) -> bool:
        """A stream was asked for."""
        return bool(self.body.get("stream"))

    async def say(self, data: bytes) -> None:
        """Send bytes and see them off."""
        self.writer.write(data)
        await self.writer.drain()

    async def say_head(self, *, length: int | None = None, status: str = "200 OK") -> None:
        """Send the head of an answer of the kind that was asked for."""
        kind = "text/event-stream" if self.stream else "application/json"
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        await self.say(f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{framing}\r\n\r\n".encode())

    def answer(self) -> bytes:
        """Return the bytes of a good answer's body."""
        return HELLO if self.stream else dumps(completion(self.body.get("model", "")))

    async def say_answer(self) -> None:
        """Answer as a node should."""
        whole = self.answer()
        if not self.stream:
            await self.say_head(length=len(whole))
            await self.say(whole)
            return
        await self.say_head()
        await self.say(chunk(whole) + b"0\r\n\r\n")

    async def passed_on(self) -> None:
        """Wait until the client has what was said so far."""
        async with asyncio.timeout(5):
            await self.heard.wait()

    async def until_left(self) -> None:
        """Say nothing more, and wait until the other side has enough."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Close with a reset, at once."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Play: TypeAlias = Callable[[Turn], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens, and when."""

    at: At
    play: Play


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class FaultyNode:
    """The node. Use it as a context manager; all methods may be called from any thread."""

    def __init__(self, models: list[str]) -> None:
        self.fault: Fault | None = None
        self.asked: list[dict[str, Any]] = []
        self.busy = 0
        self._rows = [
            {"id": m, "harness": "any", "status": "loaded", "devices": [0]} for m in models
        ]
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._accepting: asyncio.Task[None] | None = None
        self._turns: dict[str, Turn] = {}
        self._fillers: list[socket.socket] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._listening = _listen(0, 128)
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._begin_accepting())
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def arm(self, fault: Fault) -> None:
        """Have inference meet `fault` from now on, on a connection that knows nothing yet."""
        self.fault = fault
        self._do(self._let_go())

    def disarm(self) -> None:
        """Be a good node again."""
        self.fault = None

    def heard(self, request_id: str) -> None:
        """Know that a client has the first words of its stream."""
        if (turn := self._turns.get(request_id)) is not None:
            self._loop.call_soon_threadsafe(turn.heard.set)

    def let_go(self) -> None:
        """Close connections that wait for another request, until the other side knows it."""
        self._do(self._let_go())

    def refuse_connections(self) -> None:
        """Stop listening; what is connected stays so, unless it waits for inference."""
        self._do(self._let_go())
        self._do(self._stop_listening())

    def fill_accept_queue(self) -> None:
        """Listen, but accept nobody, with as many waiting as the kernel allows."""
        self._do(self._let_go())
        self._do(self._stop_listening())
        self._listening = _listen(self.port, 0)
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)  # its signature
            with suppress(BlockingIOError):
                filler.connect(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def listen_again(self) -> None:
        """Accept as before."""
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        self._do(self._stop_listening())
        self._listening = _listen(self.port, 128)
        self._do(self._begin_accepting())

    def _do(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _begin_accepting(self) -> None:
        self._accepting = asyncio.create_task(self._accept(self._listening))

    async def _stop_listening(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None
        self._listening.close()

    async def _end(self) -> None:
        await self._stop_listening()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _let_go(self) -> None:
        idle = dict(self._idle)
        for writer in idle.values():
            writer.write_eof()
        if idle:
            await asyncio.wait(idle, timeout=5)

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            connection, _ = await self._loop.sock_accept(listening)
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        turn = Turn(reader, writer)
        try:
            if self.fault is not None and self.fault.at is At.ACCEPT:
                await self.fault.play(turn)
                return
            while await self._one(turn):
                pass
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _one(self, turn: Turn) -> bool:
        me = asyncio.current_task()
        assert me is not None
        if turn.number:
            self._idle[me] = turn.writer
        try:
            head = (await turn.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        finally:
            self._idle.pop(me, None)
        method, path, _ = head.split("\r\n")[0].split(" ")
        if method == "GET":
            await self._control(turn, path)
            return True
        turn.number += 1
        self.busy += 1
        try:
            return await self._infer(turn, head)
        finally:
            self.busy -= 1

    async def _infer(self, turn: Turn, head: str) -> bool:
        fault = self.fault
        if fault is not None and fault.at is At.HEAD:
            await fault.play(turn)
            return False
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:-2])
        turn.body = loads(await turn.reader.readexactly(int(fields["content-length"])))
        self.asked.append(turn.body)
        turn.heard = asyncio.Event()
        self._turns[fields["x-request-id"]] = turn
        if fault is not None:
            turn.kept = False
            await fault.play(turn)
            return turn.kept
        await turn.say_answer()
        return True

    async def _control(self, turn: Turn, path: str) -> None:
        told: dict[str, Any] = {
            "/discovery": {"hostname": "faulty", "devices": [], "harnesses": ["any"]},
            "/health": {"uptime_secs": 1, "devices": []},
            "/models": self._rows,
        }
        body = dumps(told.get(path, {"error": "no such route"}))
        status = "200 OK" if path in told else "404 Not Found"
        await turn.say(
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )


def _listen(port: int, backlog: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(backlog)
    sock.setblocking(False)  # its signature
    return sock
