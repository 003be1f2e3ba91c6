"""Sanic behind connections of our own, with a short way for the routes that carry the traffic.

A route that is `direct` is found in a table and answers by itself (`ClientWriter`) or returns a
response. Every other request takes Sanic's way: its router, its handlers, its errors; only its
signals, which nobody here listens to, are left out.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol, TypeAlias

from sanic import HTTPResponse, Request, Sanic
from sanic.compat import Header
from sanic.exceptions import SanicException
from sanic.models.server_types import ConnInfo

from cortex_core.errors import ApiError
from cortex_uplink import guarding
from cortex_uplink.client_connection import ClientConnection
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.client_writer import ClientWriter
from cortex_uplink.envelopes import Named, as_api_error, error_answer, log_crash
from cortex_uplink.request_parser import Head
from cortex_uplink.sanic_stream import SanicStream

Direct: TypeAlias = Callable[[ClientRequest], Coroutine[Any, Any, HTTPResponse | None]]
#: Hears of a request that fails: what its client is told, and what was raised.
OnFailure: TypeAlias = Callable[[Named, ApiError, Exception], None]


class Guard(Protocol):
    """Lets requests pass to their routes, or raises the ApiError that their clients are told."""

    def preview(self, head: Head) -> None:
        """Look at a request whose body is still on its way."""
        ...

    async def check(self, request: ClientRequest) -> None:
        """Look at a whole request."""
        ...


class _Nothing:
    """An awaitable that is done."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]  # an iterator is enough for await


_NOTHING = _Nothing()


class LeanApp(Sanic[Any, Any]):
    """A Sanic app with direct routes, by method and path, that answers `ClientConnection`s."""

    __slots__ = ("direct", "guard", "on_failure")

    def __init__(self, name: str, on_failure: OnFailure = log_crash) -> None:
        super().__init__(name, configure_logging=False)
        self.direct: dict[tuple[str, str], Direct] = {}
        self.on_failure = on_failure
        self.guard: Guard | None = None

    def add_direct_route(self, handler: Direct, path: str, name: str) -> None:
        """Have `handler` answer `POST path`."""
        self.direct["POST", path] = handler
        # So that Sanic too knows the path, and refuses other methods on it.
        self.add_route(_never, path, methods=["POST"], name=name)

    def dispatch(self, event: str, **more: Any) -> Any:
        """Tell of what happens to the server; of what happens to a request nobody wants to hear."""
        return _NOTHING if event.startswith("http.") else super().dispatch(event, **more)

    @property
    def max_body_bytes(self) -> int:
        """The largest body that a request may have."""
        return int(self.config.REQUEST_MAX_SIZE)

    def preview(self, head: Head) -> None:
        """Have a guard look at a request whose body is still on its way: it may not be worth it."""
        if self.guard is not None:
            self.guard.preview(head)

    async def answer(self, request: ClientRequest) -> None:
        """Answer a request, whatever comes of it."""
        if self.guard is not None and not await self._is_let_in(self.guard, request):
            return
        # Sanic too takes a path with slashes behind it for the one without.
        handler = self.direct.get((request.method, request.path.rstrip("/")))
        if handler is None:
            await self._by_sanic(request)
            return
        try:
            response = await handler(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # turned into an answer in one place
            response = self.failed(request, error)
        if response is not None:
            _send(request, response)

    async def _is_let_in(self, guard: Guard, request: ClientRequest) -> bool:
        try:
            await guard.check(request)
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  # turned into an answer in one place
            _send(request, self.failed(request, error))
            return False
        return True

    def refuse(self, request: ClientRequest, error: ApiError) -> None:
        """Tell a client that its request cannot be read or will not be answered."""
        _send(request, self.failed(request, error))

    def failed(self, request: Named, error: Exception) -> HTTPResponse:
        """Return what a client is told of `error`, having told the operator."""
        told = as_api_error(request, error)
        self.on_failure(request, told, error)
        return error_answer(request, told)

    async def _by_sanic(self, asked: ClientRequest) -> None:
        try:
            request: Request = self.request_class(
                url_bytes=asked.target.encode("latin-1"),
                headers=Header(asked.headers.items()),
                version="1.1",
                method=asked.method,
                transport=asked.connection.transport,  # type: ignore[arg-type]  # it has all
                app=self,
            )
        except SanicException as error:
            _send(asked, self.failed(asked, error))
            return
        request.conn_info = ConnInfo(asked.connection.transport)  # type: ignore[arg-type]  # as above
        request.ctx.name = asked.name
        request.ctx.grant = asked.grant
        request.body = asked.body
        request.stream = SanicStream(asked)  # type: ignore[assignment]  # it is used as one
        await self.handle_request(request)


async def _never(_: Request) -> HTTPResponse:
    raise AssertionError("a direct route is answered before Sanic hears of it")


def _send(request: ClientRequest, response: HTTPResponse) -> None:
    if request.connection.answering:
        return  # never two answers: one that was begun and not ended ends with the connection
    headers = {name.lower(): str(value) for name, value in response.headers.items()}
    if response.content_type:
        headers.setdefault("content-type", response.content_type)
    ClientWriter(request).whole(response.status, headers, response.body or b"")


async def start_server(
    app: LeanApp,
    listener: socket.socket,
    connections: set[ClientConnection],
    tls: ssl.SSLContext | None = None,
) -> asyncio.Server:
    """Serve `app` on a bound socket. Its connections enter themselves in `connections`."""
    await app._startup()  # type: ignore[no-untyped-call]  # noqa: SLF001  # as Sanic's server does
    return await asyncio.get_running_loop().create_server(
        lambda: ClientConnection(app, connections),
        sock=listener,
        backlog=1024,
        ssl=tls,
        ssl_handshake_timeout=None if tls is None else guarding.HANDSHAKE_SECS,
    )
