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
from typing import Self

from cortex_uplink.addresses import target_of
from cortex_uplink.answer_parser import AnswerParser
from cortex_uplink.connection import ChunkSink, Connection, Limits, Sink
from cortex_uplink.errors import ConnectionLost, HungUp
from cortex_uplink.headers import Headers
from cortex_uplink.pool import Pool
from cortex_uplink.request_head import Prepared, prepare, whole_head


@dataclass(frozen=True, slots=True)
class Stream:
    """The body of a request that comes in parts; of `length` bytes, or None: sent in chunks."""

    parts: AsyncIterator[bytes]
    length: int | None = None


class Answer(AbstractAsyncContextManager["Answer"]):
    """A request on its way, and once it is entered its answer: status, headers, body to come."""

    __slots__ = (
        "_body",
        "_connection",
        "_head",
        "_headers",
        "_keep_alive",
        "_limits",
        "_parser",
        "_pool",
        "_prepared",
        "_sending",
        "status",
    )

    def __init__(
        self,
        pool: Pool,
        prepared: Prepared,
        head: bytes,
        body: bytes | Stream,
        limits: Limits,
        *,
        keep_alive: bool,
    ) -> None:
        self.status = 0
        self._pool = pool
        self._prepared = prepared
        self._head = head
        self._body = body
        self._limits = limits
        self._keep_alive = keep_alive
        self._headers: Headers | None = None
        self._parser: AnswerParser
        self._connection: Connection
        self._sending: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        origin = self._prepared.origin
        # A stream cannot be sent twice, so it never goes where that may be necessary.
        kept = self._pool.take(origin) if isinstance(self._body, bytes) else None
        if kept is not None:
            try:
                await self._ask(kept)
            except HungUp:
                pass
            else:
                return self
        await self._ask(await self._pool.connect(origin, self._limits.connect))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connection = self._connection
        if not self._keep_alive:
            connection.abort()
        elif connection.finish():
            self._pool.give_back(self._prepared.origin, connection)
        if self._sending is not None:
            await self._stop_sending()

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

    def header(self, name: str) -> str | None:
        """Return the first header called `name`, which is in small letters."""
        for known, value in self._parser.headers:
            if known == name:
                return value
        return None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises IdleTimeout, ConnectionLost or MalformedAnswer."""
        while block := await self._connection.block(self._parser):
            yield block

    async def relay(self, sink: Sink, chunk_sink: ChunkSink | None = None) -> None:
        """Give the rest of the body to `sink`, and return at its end.

        `sink` is called where the bytes arrive, from the event loop, with no task in between; it
        must not block. What it returns is waited for before it is called again, and meanwhile the
        other side has to wait too once a bound is reached. What it raises ends the relay. While
        `chunk_sink` is steady it is asked first. Raises as `chunks`.
        """
        await self._connection.relay(self._parser, sink, chunk_sink)

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body. Raises ConnectionLost when it exceeds `max_bytes`."""
        connection, parser = self._connection, self._parser
        block = await connection.block(parser)
        if parser.complete and not connection.has_more:
            if len(block) <= max_bytes:
                return block
            raise ConnectionLost(f"an answer of more than {max_bytes} bytes")
        parts: list[bytes] = []
        size = 0
        while block:
            size += len(block)
            if size > max_bytes:
                raise ConnectionLost(f"an answer of more than {max_bytes} bytes")
            parts.append(block)
            block = await connection.block(parser)
        return b"".join(parts)

    async def _ask(self, connection: Connection) -> None:
        body = self._body
        parser = AnswerParser(to_head=self._prepared.method == "HEAD")
        try:
            if isinstance(body, bytes):
                connection.ask(self._head, body, parser, self._limits)
            else:
                connection.ask(self._head, None, parser, self._limits)
                self._sending = asyncio.create_task(connection.send(body.parts, body.length))
            await connection.begun(parser)
        except BaseException:
            connection.abort()
            await self._stop_sending()
            raise
        self._connection, self._parser, self.status = connection, parser, parser.status

    async def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait((self._sending,))


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

    def prepare(
        self,
        url: str,
        headers: Mapping[str, str] | Iterable[tuple[str, str]],
        method: str = "POST",
    ) -> Prepared:
        """Return the part of a request that many share, for `ask`. Raises RequestRefused."""
        given = headers.items() if isinstance(headers, Mapping) else headers
        return prepare(method, target_of(url), given, close=not self._keep_alive)

    def open(
        self,
        url: str,
        *,
        body: bytes | Stream,
        headers: Mapping[str, str] | Iterable[tuple[str, str]],
        method: str = "POST",
        limits: Limits | None = None,
    ) -> Answer:
        """Send a request that is like no other; see `ask`. Raises RequestRefused."""
        return self.ask(self.prepare(url, headers, method), body=body, limits=limits)

    def ask(
        self,
        request: Prepared,
        *,
        body: bytes | Stream,
        header: tuple[str, str] | None = None,
        limits: Limits | None = None,
    ) -> Answer:
        """Send a request, with one more `header`, and give its answer once that begins.

        Whatever it raises before that (ConnectFailed, FirstByteTimeout, or another UplinkError)
        means that no answer was received, so another replica may be asked. A request whose kept
        connection turns out to be dead before a byte came is sent once more, on a new one.
        """
        length = len(body) if isinstance(body, bytes) else body.length
        return Answer(
            self._pool,
            request,
            whole_head(request, length, header),
            body,
            limits or self._limits,
            keep_alive=self._keep_alive,
        )
