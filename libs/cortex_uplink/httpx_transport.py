"""The uplink under `httpx.AsyncClient`, for whoever would rather speak httpx.

httpx.AsyncClient(transport=UplinkTransport())
"""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from math import inf
from types import TracebackType
from typing import Self

import httpx

from cortex_uplink.client import Answer, Stream, Uplink
from cortex_uplink.connection import Limits
from cortex_uplink.errors import (
    ConnectFailed,
    FirstByteTimeout,
    HungUp,
    IdleTimeout,
    RequestRefused,
    UplinkError,
)

_NO_LIMITS = Limits(connect=inf, first_byte=inf, idle=inf)


class UplinkTransport(httpx.AsyncBaseTransport):
    """A transport over one pool. httpx's `read` limit is ours to the first byte and between two.

    Of httpx's other limits, `connect` is the same, and `write` and `pool` have nothing to bound: a
    request that is not taken is one whose answer does not come, and no request waits for the pool.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._uplink = Uplink(_NO_LIMITS, tls=tls)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and return its answer once it begins."""
        timeout = request.extensions.get("timeout", {})
        read = _secs(timeout.get("read"))
        headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in request.headers.raw]
        with _as_httpx(request):
            opening = self._uplink.open(
                str(request.url),
                method=request.method,
                headers=headers,
                body=_body(request),
                limits=Limits(connect=_secs(timeout.get("connect")), first_byte=read, idle=read),
            )
            answer = await opening.__aenter__()
        return httpx.Response(
            answer.status,
            headers=list(answer.headers.raw),
            stream=_Body(request, opening, answer),
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._uplink.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(
        self, request: httpx.Request, opening: AbstractAsyncContextManager[Answer], answer: Answer
    ) -> None:
        self._request = request
        self._opening: AbstractAsyncContextManager[Answer] | None = opening
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _as_httpx(self._request):
            async for chunk in self._answer.chunks():
                yield chunk

    async def aclose(self) -> None:
        opening, self._opening = self._opening, None
        if opening is not None:
            await opening.__aexit__(None, None, None)


def _body(request: httpx.Request) -> bytes | Stream:
    try:
        return request.content
    except httpx.RequestNotRead:
        pass
    assert isinstance(request.stream, httpx.AsyncByteStream)  # noqa: S101  # it is an AsyncClient's
    length = request.headers.get("content-length")
    if length is not None and not length.isdecimal():
        raise httpx.LocalProtocolError(f"not a content-length: {length!r}", request=request)
    return Stream(aiter(request.stream), None if length is None else int(length))


def _secs(limit: float | None) -> float:
    return inf if limit is None else limit


@contextmanager
def _as_httpx(request: httpx.Request) -> Iterator[None]:
    """Raise our errors as httpx's."""
    try:
        yield
    except UplinkError as error:
        raise _kind(error)(str(error), request=request) from error


def _kind(error: UplinkError) -> type[httpx.TransportError]:
    match error:
        case RequestRefused():
            return httpx.LocalProtocolError
        case FirstByteTimeout() | IdleTimeout():
            return httpx.ReadTimeout
        case ConnectFailed() if isinstance(error.__cause__, TimeoutError):
            return httpx.ConnectTimeout
        case ConnectFailed() if not isinstance(error, HungUp):
            return httpx.ConnectError
        case _:
            return httpx.RemoteProtocolError
