"""One connection of a client: its requests one after the other, each answered by a task of its own.

Bytes are parsed where they arrive. Whoever answers writes straight to the connection
(`ClientWriter`); when a client leaves, the task that answers it is cancelled. A client that ends
its side has left: from here nobody can tell it from one whose process ended. One timer serves all
limits of `guarding`: it looks at what is being waited for, so that a request costs no timer.
"""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Protocol, cast

from cortex_core.errors import ApiError, InvalidRequest
from cortex_uplink import guarding
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.lazy_timer import LazyTimer
from cortex_uplink.request_parser import Asked, Head, RequestParser
from cortex_uplink.write_batch import write_batch

#: So much of a client's next requests is taken in while one is answered.
MAX_AHEAD_BYTES = 64 * 1024
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answerer(Protocol):
    """Whoever answers the requests of connections."""

    @property
    def max_body_bytes(self) -> int:
        """The largest body that a request may have."""
        ...

    def preview(self, head: Head) -> None:
        """Look at a request whose body is still on its way. Raises the ApiError that refuses it."""
        ...

    async def answer(self, request: ClientRequest) -> None:
        """Answer a request, whatever comes of it."""
        ...

    def refuse(self, request: ClientRequest, error: ApiError) -> None:
        """Tell a client that its request cannot be read or will not be answered."""
        ...


class ClientConnection(asyncio.Protocol):
    """A connection, entered in `connections` for as long as it lasts."""

    # There may be ten thousand that ask for nothing.
    __slots__ = (
        "_answerer",
        "_connections",
        "_cut",
        "_discarded",
        "_discarding",
        "_last",
        "_loop",
        "_parser",
        "_reading_ahead",
        "_since",
        "_stalled",
        "_taken",
        "_task",
        "_timer",
        "address",
        "answered",
        "answering",
        "batch",
        "crowded",
        "transport",
    )

    def __init__(self, answerer: Answerer, connections: "set[ClientConnection]") -> None:
        self._answerer = answerer
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._timer = LazyTimer(self._look)
        self.batch = write_batch()
        self._parser = RequestParser(answerer.max_body_bytes)
        self._task: asyncio.Task[None] | None = None
        self._cut: ApiError | None = None
        self._since = self._last = 0.0
        self._reading_ahead = True
        self._discarding = False
        self._discarded = 0
        self._stalled: asyncio.TimerHandle | None = None
        self._taken: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport
        #: Where the client is, as far as the socket tells.
        self.address = ""
        #: Whether something of the current answer is out, and whether all of it is.
        self.answering = self.answered = False
        #: The client has more before it than it took so far.
        self.crowded = False

    # --- the event loop's calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, unless there are too many."""
        self.transport = cast("asyncio.Transport", transport)
        if len(self._connections) >= guarding.most_connections():
            self.transport.abort()
            return
        self._connections.add(self)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        self._since = self._loop.time()
        self._timer.look_by(self._since + min(guarding.HEAD_SECS, guarding.IDLE_SECS))

    def data_received(self, data: bytes) -> None:
        """Parse, and answer what is whole."""
        if self._task is not None:
            parser = self._parser
            parser.ahead += data
            if len(parser.ahead) > MAX_AHEAD_BYTES and self._reading_ahead:
                self._reading_ahead = False
                self.transport.pause_reading()
        elif self._discarding:
            self._discard(len(data))
        else:
            self._feed(data)

    def eof_received(self) -> None:
        """Stop whoever answers. What is out already, the client may still take."""
        self.batch.flush()
        if self._task is not None:
            self._task.cancel()

    def connection_lost(self, _: Exception | None) -> None:
        """Stop whoever answers."""
        self._connections.discard(self)
        self._timer.stop()
        if self._stalled is not None:
            self._stalled.cancel()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """Give the client a while to take what there is."""
        if self._stalled is None:
            self._stalled = self._loop.call_later(guarding.STALL_SECS, self.transport.abort)
        if self._taken is None:
            self._taken = self._loop.create_future()
            self.crowded = True

    def resume_writing(self) -> None:
        """Go on."""
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        taken, self._taken = self._taken, None
        self.crowded = False
        if taken is not None and not taken.done():
            taken.set_result(None)

    # --- for those who answer, and who end the daemon ---

    def taken(self) -> Awaitable[None] | None:
        """Return what to wait for until the client has taken most of what there is for it."""
        return None if self._taken is None else asyncio.shield(self._taken)

    def close_if_idle(self) -> bool:
        """Close unless a request is being answered; tell whether that was so.

        What is there for the client still goes out.
        """
        if self._task is None:
            self.batch.flush()
            self.transport.close()
        return self._task is None

    def abort(self) -> None:
        """Close at once."""
        self.transport.abort()

    def cut(self, error: ApiError) -> None:
        """Stop answering. A client that has nothing of its answer yet is told of `error`."""
        self._cut = error
        if self._task is not None:
            # Not at once: one that has not begun would end without a word.
            self._loop.call_soon(self._task.cancel)

    # --- one request ---

    def _feed(self, data: bytes) -> None:
        parser = self._parser
        fresh = parser.idle
        try:
            asked = parser.feed(data)
            if asked is None and parser.head is not None:
                self._answerer.preview(parser.head)
        except ApiError as error:
            self._refuse(error)
            return
        if asked is not None:
            self._begin(ClientRequest(asked, self))
            return
        now = self._last = self._loop.time()
        if fresh and not parser.idle:
            self._since = now
        if parser.head is not None and parser.expects_continue:
            parser.expects_continue = False
            self.batch.put(self.transport.write, _CONTINUE)
        self._timer.look_by(self._due())

    def _begin(self, request: ClientRequest) -> None:
        self.answering = self.answered = False
        self._task = self._loop.create_task(self._answer(request))

    async def _answer(self, request: ClientRequest) -> None:
        try:
            await self._answerer.answer(request)
            if self.crowded and (taking := self.taken()) is not None:
                # Who only asks, and takes nothing, is asked to wait.
                await taking
        except asyncio.CancelledError:
            if self._cut is not None and not self.answering and not self.transport.is_closing():
                request.keep_alive = False
                self._answerer.refuse(request, self._cut)
        finally:
            self._task = None
            if not self.answered:
                self.transport.abort()
            elif not request.keep_alive or self._cut is not None or self.transport.is_closing():
                self._close()
            else:
                self._next()

    def _next(self) -> None:
        """Go on with what has come meanwhile, or wait for it."""
        self._since = self._last = self._loop.time()
        if not self._reading_ahead:
            self._reading_ahead = True
            if not self.transport.is_closing():
                self.transport.resume_reading()
        if self._parser.ahead:
            self._feed(b"")
        self._timer.look_by(self._since + guarding.IDLE_SECS)

    def _close(self) -> None:
        """Close once the answer is out; a client that still sends gets to reading it first."""
        transport = self.transport
        if (self._parser.ahead or not self._reading_ahead) and not transport.is_closing():
            self._begin_discarding()
            return
        self.batch.flush()
        transport.close()
        if self in self._connections:
            self._since = self._loop.time()
            self._timer.look_by(self._since + guarding.IDLE_SECS)

    # --- a request that is refused ---

    def _refuse(self, error: ApiError) -> None:
        parser = self._parser
        head = parser.head or Head("NONE", "*", "*", {}, keep_alive=False, modern=False)
        request = ClientRequest(Asked(head, b""), self)
        request.keep_alive = False
        self.answering = self.answered = False
        self._answerer.refuse(request, error)
        self._begin_discarding()

    def _begin_discarding(self) -> None:
        self._discarding = True
        self._parser = RequestParser(0)  # what has come of a request is of no use any more
        self.batch.flush()
        with suppress(OSError, RuntimeError):  # it may be gone, or speak TLS
            self.transport.write_eof()
        if not self._reading_ahead and not self.transport.is_closing():
            self.transport.resume_reading()
        self._since = self._loop.time()
        self._timer.look_by(self._since + guarding.DISCARD_SECS)

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > guarding.DISCARD_MAX_BYTES:
            self.transport.abort()

    # --- limits ---

    def _due(self) -> float:
        """Return when what is waited for should be there."""
        parser = self._parser
        if self._discarding:
            return self._since + guarding.DISCARD_SECS
        if parser.head is not None and parser.body is not None:
            paced = parser.body.received / guarding.BODY_BYTES_A_SEC
            return min(
                self._last + guarding.BODY_SILENCE_SECS, self._since + guarding.BODY_SECS + paced
            )
        return self._since + (guarding.IDLE_SECS if parser.idle else guarding.HEAD_SECS)

    def _look(self) -> None:
        if self._task is not None:
            return
        if self._loop.time() < (due := self._due()):
            self._timer.look_by(due)
        elif self.transport.is_closing():
            self.transport.abort()
        elif self._discarding or self._parser.idle:
            self.transport.close()
            # Its last answer may still be on its way: not for ever.
            self._since = self._loop.time()
            self._timer.look_by(self._due())
        else:
            what = "head" if self._parser.head is None else "body"
            self._refuse(InvalidRequest(f"the request's {what} did not come in time"))
