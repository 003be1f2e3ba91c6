"""The streaming HTTP path that both daemons proxy with.

`Uplink.open` sends a request and returns as soon as the answer's headers are there; the body comes
chunk by chunk, as the bytes they were, and never faster than it is read. There is no total timeout:
connecting, the first byte and silence inside the answer each have their own limit. Leaving the
`async with` block ends the upstream request at once, which is how a hung-up client reaches the
engine.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType

from cortex_uplink.addresses import Origin, target_of
from cortex_uplink.answer_parser import AnswerParser
from cortex_uplink.connection import Connection, Limits, Sink
from cortex_uplink.errors import ConnectionLost, HungUp
from cortex_uplink.headers import Headers
from cortex_uplink.pool import Pool
from cortex_uplink.request_head import request_head


@dataclass(frozen=True, slots=True)
class Stream:
    """The body of a request that comes in parts; of `length` bytes, or None: sent in chunks."""

    parts: AsyncIterator[bytes]
    length: int | None = None


class Answer:
    """An answer that has begun: status, headers, and the body still to come."""

    __slots__ = ("_connection", "_headers", "_parser", "status")

    def __init__(self, parser: AnswerParser, connection: Connection) -> None:
        self.status = parser.status
        self._parser = parser
        self._connection = connection
        self._headers: Headers | None = None

    @property
    def headers(self) -> Headers:
        """The headers, found in any case."""
        if self._headers is None:
            self._headers = Headers(self._parser.headers)
        return self._headers

    @property
    def trailers(self) -> Headers:
        """What came after the body: nothing before it has ended, and rarely something then."""
        return Headers(self._parser.trailers)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises IdleTimeout, ConnectionLost or MalformedAnswer."""
        while block := await self._connection.block(self._parser):
            yield block

    async def relay(self, sink: Sink) -> None:
        """Give the rest of the body to `sink`, and return at its end.

        `sink` is called where the bytes arrive, from the event loop, with no task in between; it
        must not block. What it returns is waited for before it is called again, and meanwhile the
        other side has to wait too once a bound is reached. What it raises ends the relay. Raises
        as `chunks`.
        """
        await self._connection.relay(self._parser, sink)

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body. Raises ConnectionLost when it exceeds `max_bytes`."""
        parts: list[bytes] = []
        size = 0
        while block := await self._connection.block(self._parser):
            size += len(block)
            if size > max_bytes:
                raise ConnectionLost(f"an answer of more than {max_bytes} bytes")
            parts.append(block)
        return b"".join(parts)


class Uplink:
    """A pool of connections to nodes or engines. Close it with `aclose`.

    Without `keep_alive` each request has a connection of its own, for servers that give every idle
    connection one of a few threads (llama.cpp's does) and make newcomers wait for it. Certificates
    are checked by `tls`, or against those that the system trusts.
    """

    def __init__(
        self, limits: Limits, *, keep_alive: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self._limits = limits
        self._keep_alive = keep_alive
        self._pool = Pool(tls)

    @property
    def open_connections(self) -> int:
        """How many connections there are, idle ones included."""
        return self._pool.open_count

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    def open(
        self,
        url: str,
        *,
        body: bytes | Stream,
        headers: Mapping[str, str] | Iterable[tuple[str, str]],
        method: str = "POST",
        limits: Limits | None = None,
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a request and give its answer once it begins.

        Whatever it raises before that (ConnectFailed, FirstByteTimeout, or another UplinkError)
        means that no answer was received, so another replica may be asked. A request whose kept
        connection turns out to be dead before a byte came is sent once more, on a new one.
        """
        return _Exchange(
            pool=self._pool,
            method=method,
            url=url,
            headers=headers.items() if isinstance(headers, Mapping) else headers,
            body=body,
            limits=limits or self._limits,
            keep_alive=self._keep_alive,
        )


@dataclass(eq=False, kw_only=True)
class _Exchange(AbstractAsyncContextManager[Answer]):
    """One request and its answer."""

    pool: Pool
    method: str
    url: str
    headers: Iterable[tuple[str, str]]
    body: bytes | Stream
    limits: Limits
    keep_alive: bool
    _origin: Origin | None = None
    _connection: Connection | None = None
    _sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Answer:
        target = target_of(self.url)
        origin = self._origin = target.origin
        body = self.body
        length = len(body) if isinstance(body, bytes) else body.length
        head = request_head(
            self.method, target, self.headers, length=length, close=not self.keep_alive
        )
        # A stream cannot be sent twice, so it never goes where that may be necessary.
        kept = self.pool.take(origin) if isinstance(body, bytes) else None
        if kept is not None:
            try:
                return await self._ask(kept, head)
            except HungUp:
                pass
        return await self._ask(await self.pool.connect(origin, self.limits.connect), head)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connection, origin = self._connection, self._origin
        assert connection is not None and origin is not None  # noqa: S101, PT018  # it was entered
        if not self.keep_alive:
            connection.abort()
        elif connection.finish():
            self.pool.give_back(origin, connection)
        await self._stop_sending()

    async def _ask(self, connection: Connection, head: bytes) -> Answer:
        parser = AnswerParser(to_head=self.method == "HEAD")
        try:
            if isinstance(self.body, bytes):
                connection.ask(head, self.body, parser, self.limits)
            else:
                connection.ask(head, None, parser, self.limits)
                self._sending = asyncio.create_task(
                    connection.send(self.body.parts, self.body.length)
                )
            await connection.begun(parser)
        except BaseException:
            connection.abort()
            await self._stop_sending()
            raise
        self._connection = connection
        return Answer(parser, connection)

    async def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait((self._sending,))
