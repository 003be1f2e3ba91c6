"""One connection to the other side: a request at a time, never more in memory than is wanted.

Bytes are parsed where they arrive, in the event loop's own callback. A reader that waits gets them
without a task in between (`relay`); for one that does not, they are kept up to a bound, beyond
which the other side has to wait. One timer serves all limits: it looks at when something last
happened, so that a chunk costs no timer.
"""

import asyncio
import select
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from math import inf
from typing import Protocol, TypeAlias, cast

from cortex_uplink.answer_parser import AnswerParser
from cortex_uplink.errors import (
    ConnectionLost,
    FirstByteTimeout,
    HungUp,
    IdleTimeout,
    UplinkError,
)
from cortex_uplink.lazy_timer import LazyTimer
from cortex_uplink.sending import Sender

#: Takes a piece of the body at once. When it returns something to wait for, the next piece is kept
#: back until that is done.
Sink: TypeAlias = Callable[[bytes], Awaitable[object] | None]


class ChunkSink(Protocol):
    """A second way for a body in chunks, for those who pass chunks on as they came."""

    @property
    def steady(self) -> bool:
        """Whether `take_chunks` may be asked until the sink is called again."""
        ...

    def take_chunks(self, data: bytes) -> bool:
        """Take bytes that begin with a chunk; False: let the sink have what they hold.

        Whoever takes them has seen that they are whole chunks and nothing else.
        """
        ...


#: Body that nobody has read yet: beyond this the other side waits. One more read, of at most as
#: much, may already be under way.
MAX_UNREAD_BYTES = 256 * 1024
_FIRST_ERROR_STATUS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds to connect, to the first byte, and of silence between two chunks."""

    connect: float
    first_byte: float
    idle: float


class Connection(asyncio.Protocol):
    """A connection that can be `ask`ed again once `finish` has returned True."""

    def __init__(self, on_closed: Callable[["Connection"], None]) -> None:
        self.closed = False
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._timer = LazyTimer(self._look)
        self._transport: asyncio.Transport
        self._sender: Sender
        self._readable: select.poll
        self._parser: AnswerParser | None = None
        self._error: Exception | None = None
        self._heard = False
        self._blocks: list[bytes] = []
        self._unread = 0
        self._paused = False
        self._sink: Sink | None = None
        self._chunk_sink: ChunkSink | None = None
        self._take_chunks: Callable[[bytes], bool] | None = None
        self._held: Awaitable[object] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._began = self._stamp = 0.0
        self._first_byte = self._idle = inf

    # --- what the one who asks calls ---

    def ask(self, head: bytes, body: bytes | None, parser: AnswerParser, limits: Limits) -> None:
        """Send a request, its body too unless it is to come by `send`; feed `parser` the answer."""
        self._parser, self._error, self._heard = parser, None, False
        self._first_byte, self._idle = limits.first_byte, limits.idle
        self._began = self._stamp = self._loop.time()
        self._timer.look_by(self._began + min(self._first_byte, self._idle))
        self._sender.send(head, body)

    async def send(self, parts: AsyncIterator[bytes], length: int | None) -> None:
        """Send the body of a request whose head is out, as `Sender.stream` does.

        What goes wrong with it is raised to the one who waits for the answer.
        """
        try:
            await self._sender.stream(parts, length)
        except Exception as error:  # noqa: BLE001  # it belongs to the one who asks
            self._fail(error)

    async def begun(self, parser: AnswerParser) -> None:
        """Return once the head is there. Raises UplinkError: HungUp when not a byte came."""
        while not parser.begun:
            self._check(parser)
            if self._error is not None:
                raise self._error
            await self._wait()

    @property
    def has_more(self) -> bool:
        """Something of the body waits to be taken."""
        return bool(self._blocks)

    async def block(self, parser: AnswerParser) -> bytes:
        """Return what has come of the body, waiting for some; nothing at its end."""
        self._check(parser)
        while not self._blocks:
            if parser.complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
            self._check(parser)
        return self._take()

    async def relay(
        self, parser: AnswerParser, sink: Sink, chunk_sink: ChunkSink | None = None
    ) -> None:
        """Give the rest of the body to `sink`, each piece where it arrives. Raises UplinkError."""
        self._chunk_sink = chunk_sink
        while True:
            self._check(parser)
            if self._blocks:
                held = sink(self._take())
            elif parser.complete:
                return
            elif self._error is not None:
                raise self._error
            else:
                held = await self._sunk(sink)
            if held is not None:
                await held

    def finish(self) -> bool:
        """End the exchange: True when the connection can be asked again, else it is closed."""
        parser = self._parser
        if (
            parser is None
            or not parser.complete
            or not parser.keep_alive
            or parser.excess
            or self.closed
            or self._transport.is_closing()
            or self._sender.busy
        ):
            self.abort()
            return False
        self._give_up()
        self._resume()
        return True

    def is_fresh(self) -> bool:
        """Tell whether nothing has happened on an idle connection, not even in the kernel.

        Bytes that came unasked would be taken for the answer to the next request.
        """
        return not (self.closed or self._transport.is_closing() or self._readable.poll(0))

    def abort(self) -> None:
        """Close at once, without sending what is still unsent."""
        self._give_up()
        self._close()

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._sender = Sender(self._transport)
        self._readable = select.poll()
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Parse, and pass on or keep."""
        # On the path of every chunk.
        take_chunks = self._take_chunks
        if take_chunks is not None:
            if take_chunks(data):
                self._stamp = self._loop.time()
                return
            # What the parser gets may end inside a chunk, and give the sink nothing.
            self._take_chunks = None
        parser = self._parser
        if parser is None:
            self.abort()
            return
        self._heard = True
        self._stamp = self._loop.time()
        begun = parser.begun
        try:
            body = parser.feed(data)
        except UplinkError as error:
            self._fail(error)
            return
        if body:
            self._pass_on(body)
        if not begun and parser.begun:
            if parser.status >= _FIRST_ERROR_STATUS and self._sender.busy:
                # It does not want the rest; the connection ends with this answer.
                parser.keep_alive = False
                self._sender.stop()
            self._wake()
        elif parser.complete:
            self._wake()

    def eof_received(self) -> None:
        """Take the other side's end for the answer's where that is how it is told."""
        self._ended(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everyone who waits."""
        self.closed = True
        self._timer.stop()
        self._ended(exc)
        self._sender.stop()
        self._on_closed(self)

    def pause_writing(self) -> None:
        """Send nothing more for now."""
        self._sender.pause()

    def resume_writing(self) -> None:
        """Send on; the first byte is waited for from when the request was taken."""
        self._began = self._loop.time()
        self._sender.resume()

    # --- reading ---

    def _check(self, parser: AnswerParser) -> None:
        if self._parser is not parser:
            raise ConnectionLost("the answer was given up")

    def _pass_on(self, body: bytes) -> None:
        if (sink := self._sink) is not None:
            self._take_chunks = None
            try:
                self._held = sink(body)
            except Exception as error:  # noqa: BLE001  # it belongs to the one who relays
                self._wake(error)
                return
            if self._held is not None:
                self._wake()
            else:
                self._watch_for_chunks()
            return
        self._blocks.append(body)
        self._unread += len(body)
        if self._unread > MAX_UNREAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _watch_for_chunks(self) -> None:
        """Have the next bytes offered to whoever passes chunks on as they are, if they may be."""
        chunks, parser = self._chunk_sink, self._parser
        if chunks is not None and chunks.steady and parser is not None and parser.between_chunks:
            self._take_chunks = chunks.take_chunks

    async def _sunk(self, sink: Sink) -> Awaitable[object] | None:
        """Have pieces go to `sink` until something else is to be done; return what it waits for."""
        self._sink = sink
        try:
            await self._wait()
        except BaseException:
            if isinstance(self._held, Coroutine):
                self._held.close()
            raise
        else:
            return self._held
        finally:
            self._sink = self._held = self._take_chunks = None

    def _take(self) -> bytes:
        blocks = self._blocks
        body = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        blocks.clear()
        self._resume()
        return body

    def _resume(self) -> None:
        self._unread = 0
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
                # It was silent because it had to be.
                self._stamp = self._loop.time()
                self._timer.look_by(self._stamp + self._idle)

    async def _wait(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self, error: Exception | None = None) -> None:
        # Until it runs, what comes is kept for it.
        self._sink = self._take_chunks = None
        if self._waiter is None or self._waiter.done():
            return
        if error is None:
            self._waiter.set_result(None)
        else:
            self._waiter.set_exception(error)

    # --- ends ---

    def _ended(self, reason: Exception | None) -> None:
        parser = self._parser
        if parser is None or parser.complete or self._error is not None:
            return
        lost = parser.finish() if reason is None else f"{type(reason).__name__}: {reason}"
        if lost:
            self._error = ConnectionLost(lost) if self._heard else HungUp(lost)
        self._wake()

    def _give_up(self) -> None:
        self._parser = self._chunk_sink = self._take_chunks = None
        self._blocks.clear()
        self._wake()

    def _fail(self, error: Exception) -> None:
        self._error = error
        self._close()
        self._wake()

    def _close(self) -> None:
        self._sender.stop()
        self._timer.stop()
        self._transport.abort()

    def _look(self) -> None:
        parser = self._parser
        if parser is None or parser.complete or self._paused:
            return
        due = self._stamp + self._idle if parser.begun else self._began + self._first_byte
        # Both loops read what has come before they look at timers, so a busy moment of ours is no
        # silence of theirs.
        if self._loop.time() < due:
            self._timer.look_by(due)
        elif parser.begun:
            self._fail(IdleTimeout(f"nothing for {self._idle:g} s"))
        else:
            self._fail(FirstByteTimeout(f"no answer within {self._first_byte:g} s"))
