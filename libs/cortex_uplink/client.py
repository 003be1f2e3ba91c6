"""The streaming HTTP path that both daemons proxy with.

`Uplink.open` sends a request and returns as soon as the answer's headers are there; the body comes
chunk by chunk, as the bytes they were, and never faster than it is read. There is no total timeout:
connecting, the first byte and silence inside the answer each have their own limit. Leaving the
`async with` block ends the upstream request at once, which is how a hung-up client reaches the
engine.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

#: Headers that belong to one hop, never forwarded (RFC 9110, section 7.6.1).
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class UplinkError(Exception):
    """The other side could not be used; the message is for the log, not for a client."""


class ConnectFailed(UplinkError):
    """No connection, or one that was lost before anything of the answer came."""


class FirstByteTimeout(UplinkError):
    """The request was taken, but no answer began within the limit."""


class IdleTimeout(UplinkError):
    """The answer began and then fell silent for longer than the limit."""


class ConnectionLost(UplinkError):
    """The answer broke off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds to connect, to the first byte, and of silence between two chunks."""

    connect: float
    first_byte: float
    idle: float


class Answer:
    """An answer that has begun: status, headers, and the body still to come."""

    def __init__(self, response: httpx.Response, idle_secs: float) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._idle_secs = idle_secs

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises IdleTimeout or ConnectionLost."""
        parts = self._response.stream.__aiter__()  # type: ignore[union-attr]
        while True:
            try:
                async with asyncio.timeout(self._idle_secs):
                    chunk = await anext(parts)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise IdleTimeout(f"nothing for {self._idle_secs:g} s") from error
            except (httpx.HTTPError, aiohttp.ClientError, ConnectionError) as error:
                raise ConnectionLost(f"{type(error).__name__}: {error}") from error
            yield chunk

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body. Raises ConnectionLost when it exceeds `max_bytes`."""
        parts: list[bytes] = []
        size = 0
        async for chunk in self.chunks():
            size += len(chunk)
            if size > max_bytes:
                raise ConnectionLost(f"an answer of more than {max_bytes} bytes")
            parts.append(chunk)
        return b"".join(parts)


class Uplink:
    """A pool of connections to nodes or engines. Close it with `aclose`.

    Without `keep_alive` each request has a connection of its own, for servers that give every idle
    connection one of a few threads (llama.cpp's does) and make newcomers wait for it.
    """

    def __init__(self, limits: Limits, *, keep_alive: bool = True) -> None:
        self._limits = limits
        self._client = httpx.AsyncClient(
            transport=AiohttpTransport(client=lambda: _session(keep_alive=keep_alive)),
            timeout=httpx.Timeout(connect=limits.connect, read=None, write=None, pool=None),
            trust_env=False,
            headers={
                "accept-encoding": "identity",
                "user-agent": "cortex",
                "connection": "keep-alive" if keep_alive else "close",
            },
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    @asynccontextmanager
    async def open(
        self, url: str, *, body: bytes, headers: Mapping[str, str], method: str = "POST"
    ) -> AsyncIterator[Answer]:
        """Send a request and give its answer once it begins.

        Raises ConnectFailed or FirstByteTimeout before that; both mean that nothing of an answer
        was received, so another replica may be asked.
        """
        request = self._client.build_request(method, url, content=body, headers=dict(headers))
        try:
            async with asyncio.timeout(self._limits.first_byte):
                response = await self._client.send(request, stream=True)
        except TimeoutError as error:
            limit = self._limits.first_byte
            raise FirstByteTimeout(f"no answer within {limit:g} s") from error
        except (httpx.HTTPError, aiohttp.ClientError, OSError) as error:
            raise ConnectFailed(f"{type(error).__name__}: {error}") from error
        try:
            yield Answer(response, self._limits.idle)
        finally:
            await response.aclose()


def _session(*, keep_alive: bool) -> aiohttp.ClientSession:
    connector = (
        aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
        if keep_alive
        else aiohttp.TCPConnector(limit=0, force_close=True)
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
