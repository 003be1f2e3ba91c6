"""The only place where an error becomes a response, and where an answer gets its request's name."""

from typing import Any, TypeAlias

import orjson
import structlog
from sanic import HTTPResponse, Request
from sanic.exceptions import MethodNotAllowed as SanicMethodNotAllowed
from sanic.exceptions import NotFound, SanicException

from cortex_core.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    RouteNotFound,
    Unavailable,
    envelope,
    headers,
)
from cortex_dialects import Envelope, envelope_of
from cortex_uplink.client_request import ClientRequest

log = structlog.get_logger()

Named: TypeAlias = ClientRequest | Request


def answer(value: Any, status: int = 200) -> HTTPResponse:
    """Return `value` as a JSON response."""
    return HTTPResponse(orjson.dumps(value), status=status, content_type="application/json")


def error_answer(request: Named, error: ApiError) -> HTTPResponse:
    """Return `error` in its envelope."""
    body = envelope(error, _envelope_of(request), request_id(request))
    response = answer(body, error.status)
    response.headers.update(headers(error))
    response.headers.update(name_headers(request))
    return response


def request_id(request: Named) -> str:
    """Return what the request is called."""
    return request.name if isinstance(request, ClientRequest) else str(request.ctx.name)


def name_headers(request: Named) -> dict[str, str]:
    """Return the headers that name a request to its client. Anthropic's look for `request-id`."""
    name = request_id(request)
    if _envelope_of(request) is Envelope.ANTHROPIC:
        return {"x-request-id": name, "request-id": name}
    return {"x-request-id": name}


def _envelope_of(request: Named) -> Envelope:
    return envelope_of(request.path, request.headers)


def as_api_error(request: Named, error: Exception) -> ApiError:
    """Return `error` as one of ours. Whatever was not expected becomes an InternalError."""
    match error:
        case ApiError():
            return error
        case NotFound():
            return RouteNotFound(f"there is no route {request.method} {request.path}")
        case SanicMethodNotAllowed():
            return MethodNotAllowed(f"{request.path} does not take {request.method}")
        case SanicException() if error.status_code == 503:  # noqa: PLR2004
            return Unavailable("the server is not ready for this request")
        case SanicException() if error.status_code < 500:  # noqa: PLR2004
            return InvalidRequest(str(error) or "the request cannot be read")
    return InternalError("something went wrong here; the operator's log has the details")


def log_crash(request: Named, error: ApiError, cause: Exception) -> None:
    """Log a failure that nobody expected, with its trace."""
    if error is not cause and isinstance(error, InternalError):
        log.error(
            "request.crashed",
            request_id=request_id(request),
            method=request.method,
            path=request.path,
            exc_info=cause,
        )
