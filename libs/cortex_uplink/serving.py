"""The shell both daemons serve from: one Sanic app, our envelopes, a start, and a bounded end.

Life of a daemon: bind, start background work, serve; on SIGTERM or SIGINT refuse new requests with
503 and Retry-After, give those in flight `drain_secs` to end, tell the rest that it is over, close.
SIGHUP calls `reload`. Listeners bind before anything slow begins, so that a warming daemon can be
asked how it is.
"""

import asyncio
import secrets
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import orjson
import structlog
from pydantic import BaseModel, ValidationError
from sanic import HTTPResponse, Request
from sanic.exceptions import MethodNotAllowed as SanicMethodNotAllowed

from cortex_core.errors import InvalidRequest, ShuttingDown, refused_body
from cortex_core.settings import Address
from cortex_dialects import BadBody, Front, read_front
from cortex_uplink.client_connection import ClientConnection
from cortex_uplink.envelopes import Named, log_crash, name_headers
from cortex_uplink.guarding import raise_descriptor_limit
from cortex_uplink.lean_app import LeanApp, OnFailure, start_server

log = structlog.get_logger()

_Body = TypeVar("_Body", bound=BaseModel)

_LAST_WORDS_SECS = 1.0


@dataclass(slots=True)
class Gate:
    """Whether a daemon takes requests, and how many it is working on.

    `cut` turns true when those in flight have had all the time that a drain gives them.
    """

    draining: bool = False
    cut: bool = False
    in_flight: int = 0
    _emptied: asyncio.Event = field(default_factory=asyncio.Event)

    def enter(self) -> None:
        """Count one request in, to be followed by `leave`. Raises ShuttingDown while draining."""
        if self.draining:
            raise ShuttingDown("shutting down; ask again shortly")
        self.in_flight += 1

    def leave(self) -> None:
        """Count one request out."""
        self.in_flight -= 1
        if not self.in_flight:
            self._emptied.set()

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Count one request for as long as it lasts. Raises ShuttingDown while draining."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    async def drain(self, limit_secs: float) -> bool:
        """Refuse newcomers and wait for those in flight; False when `limit_secs` were too few."""
        self.draining = True
        try:
            async with asyncio.timeout(limit_secs):
                while self.in_flight:
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            return False
        return True


def read_body(request: Request, model: type[_Body]) -> _Body:
    """Return the JSON body of a control request as `model`. Raises InvalidRequest."""
    try:
        value = orjson.loads(request.body)
    except orjson.JSONDecodeError as error:
        message = f"the body is not valid JSON: {error}"
        raise InvalidRequest(message, code="malformed_json") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise InvalidRequest(f"{param or 'body'}: {first['msg']}", param=param) from None


def read_inference(request: Named) -> Front:
    """Return the front of an inference request. Raises InvalidRequest."""
    try:
        return read_front(request.body)
    except BadBody as error:
        raise refused_body(error) from error


async def send_now(request: Request, response: HTTPResponse) -> None:
    """Send a whole answer from inside the handler, so that a drain waits until it is out."""
    sending = await request.respond(response)
    await sending.send(end_stream=True)


def make_app(name: str, *, request_max_mb: int, on_failure: OnFailure = log_crash) -> LeanApp:
    """Return an app with our envelopes on every failure and the request's name on every answer."""
    app = LeanApp(f"{name}-{secrets.token_hex(4)}", on_failure)
    app.config.REQUEST_MAX_SIZE = request_max_mb * 1024 * 1024
    app.config.ACCESS_LOG = False
    # Touch-up rewrites shared classes for one app; two apps in a process would break each other.
    app.config.TOUCHUP = False
    app.config.FALLBACK_ERROR_FORMAT = "json"

    @app.on_response  # type: ignore[untyped-decorator]
    async def _say_name(request: Request, response: HTTPResponse) -> None:
        response.headers.update(name_headers(request))

    @app.exception(Exception)
    async def _failed(request: Request, error: Exception) -> HTTPResponse:
        response = app.failed(request, error)
        if isinstance(error, SanicMethodNotAllowed):
            response.headers.update(error.headers)
        return response

    return app


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An app and where it listens."""

    app: LeanApp
    address: Address
    tls: ssl.SSLContext | None = None


async def serve(
    listeners: Sequence[Listener],
    *,
    gate: Gate,
    drain_secs: float,
    background: Callable[[], AbstractAsyncContextManager[None]],
    reload: Callable[[], Awaitable[None]],
    ready: Callable[[list[Address]], None],
) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises OSError when an address is taken."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    hangup = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hangup.set)
    raise_descriptor_limit()
    sockets = [_bind(one.address) for one in listeners]
    connections: set[ClientConnection] = set()
    servers: list[asyncio.Server] = []
    try:
        for one, sock in zip(listeners, sockets, strict=True):
            servers.append(await start_server(one.app, sock, connections, one.tls))
        async with background():
            ready([Address(*sock.getsockname()[:2]) for sock in sockets])
            reloader = asyncio.create_task(_reload_on(hangup, reload))
            try:
                await stop.wait()
            finally:
                reloader.cancel()
            if not await gate.drain(drain_secs):
                log.warning("drain.cut", in_flight=gate.in_flight, after_secs=drain_secs)
                gate.cut = True
                await _cut(connections)
    finally:
        for server in servers:
            server.close()
        await _part(connections)
        for sock in sockets:
            sock.close()


async def _cut(connections: set[ClientConnection]) -> None:
    """Cancel what outlasted a drain. Whoever has no answer yet gets one, if it listens."""
    for connection in list(connections):
        connection.cut(ShuttingDown("shutting down; ask again shortly"))
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECS):
            while [one for one in list(connections) if not one.close_if_idle()]:  # noqa: ASYNC110
                await asyncio.sleep(_LAST_WORDS_SECS / 50)


async def _part(connections: set[ClientConnection]) -> None:
    """Close every connection. What was said already goes out first, if it is taken soon."""
    for connection in list(connections):
        if not connection.close_if_idle():
            connection.cut(ShuttingDown("shutting down; ask again shortly"))
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECS):
            while connections:  # noqa: ASYNC110
                await asyncio.sleep(_LAST_WORDS_SECS / 50)
    for connection in list(connections):
        connection.abort()


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(1024)
        sock.setblocking(False)  # noqa: FBT003
    except OSError as error:
        sock.close()
        raise OSError(error.errno, error.strerror, str(address)) from error
    return sock


async def _reload_on(hangup: asyncio.Event, reload: Callable[[], Awaitable[None]]) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        await reload()
