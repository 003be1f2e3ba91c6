"""Requests that fail outside of inference: one event and one count each, whatever the route."""

import structlog
from sanic import Request

from cortex_core.errors import ApiError, InternalError
from cortex_gateway.accounting import reasons
from cortex_gateway.tallies import UNKNOWN, Tallies
from cortex_uplink.envelopes import Named, request_id

log = structlog.get_logger()

#: Of a path that a client made up.
_PATH_CHARS = 200


class Refusals:
    """What a `LeanApp` tells of its failures."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def __call__(self, request: Named, error: ApiError, raised: Exception) -> None:
        """Log and count a failure."""
        route = _route_of(request)
        code = error.code or error.type
        self._tallies.refused(route, code)
        fields = {
            "request_id": request_id(request),
            "method": request.method,
            "path": request.path[:_PATH_CHARS],
            "route": route,
            "status": error.status,
            "code": code,
        }
        if error is not raised and isinstance(error, InternalError):
            log.error("request.crashed", **fields, exc_info=raised)
        else:
            log.warning("request.refused", **fields, **reasons(error))


def _route_of(request: Named) -> str:
    """Return the route's own name, never what a client wrote."""
    route = request.route if isinstance(request, Request) else None
    return UNKNOWN if route is None else f"/{route.path}"
