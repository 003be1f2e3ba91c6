"""Connections kept for the next request, by where they lead.

The one used last is used first, so that a pool shrinks to what is needed. A connection on which
anything happened while it was idle is never used again.
"""

import asyncio
import socket
import ssl
import time
from collections import deque
from contextlib import suppress
from ipaddress import ip_address
from math import inf

from cortex_uplink.addresses import Origin
from cortex_uplink.connection import Connection
from cortex_uplink.errors import ConnectFailed

#: Of one origin, at a time.
MAX_IDLE = 256
#: Shorter than what servers commonly wait for before they close (Sanic here: 75 s).
IDLE_SECS = 30.0
#: Longest wait for the loop to say that what was aborted is closed.
CLOSE_SECS = 5.0
#: The clock of event loops, asked without one.
_now = time.monotonic


class Pool:
    """Every connection of one uplink, in use or idle. Close it with `aclose`."""

    def __init__(
        self,
        tls: ssl.SSLContext | None,
        *,
        max_idle: int = MAX_IDLE,
        idle_secs: float = IDLE_SECS,
    ) -> None:
        self._tls = tls
        self._max_idle = max_idle
        self._idle_secs = idle_secs
        self._open: set[Connection] = set()
        self._idle: dict[Origin, deque[tuple[float, Connection]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        self._closing = False

    @property
    def open_count(self) -> int:
        """How many connections there are, idle ones included."""
        return len(self._open)

    def take(self, origin: Origin) -> Connection | None:
        """Return an idle connection to `origin` that nothing has happened on."""
        idle = self._idle.get(origin)
        while idle:
            since, connection = idle.pop()
            if connection.is_fresh() and _now() - since < self._idle_secs:
                return connection
            connection.abort()
        return None

    async def connect(self, origin: Origin, limit_secs: float) -> Connection:
        """Return a new connection to `origin`. Raises ConnectFailed."""
        try:
            async with asyncio.timeout(None if limit_secs == inf else limit_secs):
                return await self._connect(origin, limit_secs)
        except TimeoutError as error:
            raise ConnectFailed(f"no connection to {origin} within {limit_secs:g} s") from error
        except (OSError, UnicodeError) as error:
            raise ConnectFailed(f"{origin}: {type(error).__name__}: {error}") from error

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """Keep a connection that can be asked again."""
        if self._closing:
            connection.abort()
            return
        idle = self._idle.setdefault(origin, deque())
        idle.append((_now(), connection))
        if len(idle) > self._max_idle:
            idle.popleft()[1].abort()
        if self._sweeper is None:
            self._sweep_in(self._idle_secs)

    async def aclose(self) -> None:
        """Close every connection, also those in use, and return when they are closed."""
        self._closing = True
        self._idle.clear()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in list(self._open):
            connection.abort()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECS):
                while self._open:
                    self._emptied = asyncio.get_running_loop().create_future()
                    await self._emptied

    async def _connect(self, origin: Origin, limit_secs: float) -> Connection:
        if self._closing:
            raise ConnectFailed("the uplink is closed")
        loop = asyncio.get_running_loop()
        if origin.socket_path:
            _, made = await loop.create_unix_connection(self._make, origin.socket_path)
            return self._enter(made)
        addresses = await _resolve(loop, origin)
        tls = self._context() if origin.tls else None
        name = origin.host if origin.tls else None
        last: Exception = OSError(f"no address for {origin.host}")
        for tried, address in enumerate(addresses):
            # A silent address must not use up the time of those after it.
            share = limit_secs / (len(addresses) - tried)
            try:
                async with asyncio.timeout(None if share == inf else share):
                    _, made = await loop.create_connection(
                        self._make, address, origin.port, ssl=tls, server_hostname=name
                    )
            except OSError as error:
                last = error
            else:
                return self._enter(made)
        raise last

    def _make(self) -> Connection:
        return Connection(self._forget)

    def _enter(self, connection: Connection) -> Connection:
        # Only now: of one that is made and then given up within `create_connection`, uvloop closes
        # the socket and never says that it was lost.
        if not connection.closed:
            self._open.add(connection)
        return connection

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if not self._open and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _sweep_in(self, secs: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(secs, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        oldest = _now() - self._idle_secs
        for origin, idle in list(self._idle.items()):
            while idle and (idle[0][0] <= oldest or idle[0][1].closed):
                idle.popleft()[1].abort()
            if not idle:
                del self._idle[origin]
        if self._idle:
            first = min(idle[0][0] for idle in self._idle.values())
            self._sweep_in(first - oldest)


async def _resolve(loop: asyncio.AbstractEventLoop, origin: Origin) -> list[str]:
    try:
        ip_address(origin.host)
    except ValueError:
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(one[4][0]) for one in found))
    return [origin.host]
