"""The shell both daemons serve from: one Sanic app, our envelopes, a start, and a bounded end.

Life of a daemon: bind, start background work, serve; on SIGTERM or SIGINT refuse new requests with
503 and Retry-After, give those in flight `drain_secs` to end, tell the rest that it is over, close.
SIGHUP calls `reload`. Listeners bind before anything slow begins, so that a warming daemon can be
asked how it is.
"""

import asyncio
import re
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
import structlog
from pydantic import BaseModel, ValidationError
from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import (
    BadRequest,
    HeaderExpectationFailed,
    NotFound,
    PayloadTooLarge,
    SanicException,
)
from sanic.exceptions import MethodNotAllowed as SanicMethodNotAllowed

from cortex_core.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    RequestTooLarge,
    RouteNotFound,
    ShuttingDown,
    Unavailable,
    envelope,
    headers,
    refused_body,
)
from cortex_core.settings import Address
from cortex_dialects import BadBody, Envelope, Front, envelope_of, read_front
from cortex_uplink.guarding import GuardedProtocol, raise_descriptor_limit
from cortex_uplink.lean_app import LeanApp

log = structlog.get_logger()

_Body = TypeVar("_Body", bound=BaseModel)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_NO_LIMIT_SECS = 86400
_LAST_WORDS_SECS = 1.0
#: So much of a refused body is read and thrown away, so that its sender gets to reading why.
_DISCARD_MAX_BYTES = 1 << 30


@dataclass(slots=True)
class Gate:
    """Whether a daemon takes requests, and how many it is working on.

    `cut` turns true when those in flight have had all the time that a drain gives them.
    """

    draining: bool = False
    cut: bool = False
    in_flight: int = 0
    _emptied: asyncio.Event = field(default_factory=asyncio.Event)

    @asynccontextmanager
    async def admit(self) -> AsyncIterator[None]:
        """Count one request for as long as it lasts. Raises ShuttingDown while draining."""
        if self.draining:
            raise ShuttingDown("shutting down; ask again shortly")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._emptied.set()

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


def read_inference(request: Request) -> Front:
    """Return the front of an inference request. Raises InvalidRequest."""
    try:
        return read_front(request.body)
    except BadBody as error:
        raise refused_body(error) from error


def answer(value: Any, status: int = 200) -> HTTPResponse:
    """Return `value` as a JSON response."""
    return HTTPResponse(orjson.dumps(value), status=status, content_type="application/json")


async def send_now(request: Request, response: HTTPResponse) -> None:
    """Send a whole answer from inside the handler, so that a drain waits until it is out."""
    sending = await request.respond(response)
    await sending.send(end_stream=True)


def error_answer(request: Request, error: ApiError) -> HTTPResponse:
    """Return `error` in its envelope: the only place where an error becomes a response."""
    body = envelope(error, _envelope_of(request), request_id(request))
    response = answer(body, error.status)
    response.headers.update(headers(error))
    return response


def name_headers(request: Request) -> dict[str, str]:
    """Return the headers that name a request to its client. Anthropic's look for `request-id`."""
    name = request_id(request)
    if _envelope_of(request) is Envelope.ANTHROPIC:
        return {"x-request-id": name, "request-id": name}
    return {"x-request-id": name}


def _envelope_of(request: Request) -> Envelope:
    return envelope_of(request.path, request.headers)


def make_app(name: str, *, request_max_mb: int) -> LeanApp:
    """Return an app with our envelopes on every failure and the request's name on every answer."""
    app = LeanApp(f"{name}-{secrets.token_hex(4)}")
    app.config.REQUEST_MAX_SIZE = request_max_mb * 1024 * 1024
    app.config.RESPONSE_TIMEOUT = _NO_LIMIT_SECS
    app.config.REQUEST_TIMEOUT = 120
    app.config.KEEP_ALIVE_TIMEOUT = 75
    app.config.ACCESS_LOG = False
    # Touch-up rewrites shared classes for one app; two apps in a process would break each other.
    app.config.TOUCHUP = False
    app.config.FALLBACK_ERROR_FORMAT = "json"

    @app.on_response  # type: ignore[untyped-decorator]
    async def _say_name(request: Request, response: HTTPResponse) -> None:
        response.headers.update(name_headers(request))

    @app.exception(Exception)
    async def _failed(request: Request, error: Exception) -> HTTPResponse:
        _hear_out(request)
        response = error_answer(request, as_api_error(request, error))
        if isinstance(error, SanicMethodNotAllowed):
            response.headers.update(error.headers)
        return response

    return app


def _hear_out(request: Request) -> None:
    """Have Sanic take in the rest of a refused body before it closes the connection.

    A connection closed on a client that still sends is reset, and most clients then report a
    broken pipe instead of our answer.
    """
    stream: Any = request.stream
    connection: Any = request.protocol
    if connection is not None and stream.request_body:
        stream.keep_alive = False
        connection.request_max_size = stream.request_max_size = _DISCARD_MAX_BYTES


def request_id(request: Request) -> str:
    """Return the client's own request id when it is a sane one, else one of ours."""
    if (known := getattr(request.ctx, "request_id", None)) is not None:
        return str(known)
    theirs = request.headers.get("x-request-id", "")
    request.ctx.request_id = (
        theirs if _REQUEST_ID.fullmatch(theirs) else f"req-{secrets.token_hex(8)}"
    )
    return str(request.ctx.request_id)


def as_api_error(request: Request, error: Exception) -> ApiError:
    """Return `error` as one of ours, having logged it if it was not expected."""
    match error:
        case ApiError():
            return error
        case NotFound():
            return RouteNotFound(f"there is no route {request.method} {request.path}")
        case SanicMethodNotAllowed():
            return MethodNotAllowed(f"{request.path} does not take {request.method}")
        case PayloadTooLarge() if "header" in str(error):
            return RequestTooLarge("the request's headers are too large")
        case PayloadTooLarge():
            limit = request.app.config.REQUEST_MAX_SIZE // (1024 * 1024)
            return RequestTooLarge(f"the body is larger than request_max_mb = {limit} MiB")
        case BadRequest() | HeaderExpectationFailed():
            return InvalidRequest(str(error))
        case SanicException() if error.status_code == 503:  # noqa: PLR2004
            return Unavailable("the server is not ready for this request")
        case SanicException() if error.status_code < 500:  # noqa: PLR2004
            return InvalidRequest(str(error) or "the request cannot be read")
    log.error(
        "request.crashed",
        request_id=request_id(request),
        method=request.method,
        path=request.path,
        exc_info=error,
    )
    return InternalError("something went wrong here; the operator's log has the details")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An app and where it listens."""

    app: Sanic[Any, Any]
    address: Address


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
    servers = []
    try:
        for one, sock in zip(listeners, sockets, strict=True):
            server = await one.app.create_server(
                sock=sock, protocol=GuardedProtocol, return_asyncio_server=True, backlog=1024
            )
            assert server is not None  # noqa: S101  # asked for with return_asyncio_server
            await server.startup()  # type: ignore[no-untyped-call]
            await server.before_start()  # type: ignore[no-untyped-call]
            await server.after_start()  # type: ignore[no-untyped-call]
            servers.append(server)
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
                await _cut([one for server in servers for one in server.connections or ()])
    finally:
        for server in servers:
            server.close()  # type: ignore[no-untyped-call]
            for connection in list(server.connections or ()):
                connection.abort()
        for sock in sockets:
            sock.close()


async def _cut(connections: list[Any]) -> None:
    """Cancel what outlasted a drain. Whoever has no answer yet gets one, if it listens."""
    for connection in connections:
        if connection.http:  # is working on a request
            connection.http.exception = ShuttingDown("shutting down; ask again shortly")
            connection._task.cancel()  # noqa: SLF001  # as Sanic itself ends one at its limit
    with suppress(TimeoutError):
        async with asyncio.timeout(_LAST_WORDS_SECS):
            while [one for one in connections if not one.close_if_idle()]:  # noqa: ASYNC110
                await asyncio.sleep(_LAST_WORDS_SECS / 50)


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
