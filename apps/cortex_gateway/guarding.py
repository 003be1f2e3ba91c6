"""Which routes need which key, while there are keys: all do that are not named here.

Inference looks for its key itself (`Inference.handle`); this is for every other route.
"""

from collections.abc import Callable
from typing import Final

import structlog
from sanic import Request

from cortex_core.access import Grant
from cortex_core.errors import ApiError, InvalidApiKey
from cortex_gateway.door import Door
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.envelopes import Named, request_id
from cortex_uplink.hush import Hush
from cortex_uplink.lean_app import OnFailure

log = structlog.get_logger()

#: Whether we live is no secret.
_OPEN: Final = frozenset({"/health", "/ready", "/version"})
#: For clients; what is not is for operators.
_FOR_CLIENTS: Final = "/v1/"
_PATH_CHARS: Final = 200


class Guard:
    """Stands before the routes of an app. `door` tells whether there are keys."""

    def __init__(self, door: Callable[[], Door | None]) -> None:
        self._door = door

    async def check(self, request: Request) -> None:
        """Let a request pass. Raises InvalidApiKey or NotPermitted."""
        door = self._door()
        if door is None or request.path.rstrip("/") in _OPEN:
            return
        grant = door.identify(request.headers)
        if not request.path.startswith(_FOR_CLIENTS):
            door.require_admin(grant)
        request.ctx.grant = grant


def grant_of(request: Request) -> Grant | None:
    """Return what the key of a request allows that `Guard` let pass; None without keys."""
    return getattr(request.ctx, "grant", None)


class Doorbell:
    """Tells of requests without a good key, which may come at any rate; `other` of the rest."""

    def __init__(self, other: OnFailure) -> None:
        self._other = other
        self._hush = Hush("access.refused_often")

    def __call__(self, request: Named, error: ApiError, raised: Exception) -> None:
        """Log a failure."""
        if not isinstance(error, InvalidApiKey):
            self._other(request, error, raised)
            return
        address = (
            request.connection.address if isinstance(request, ClientRequest) else str(request.ip)
        )
        if self._hush.worth_a_line(address):
            log.warning(
                "access.refused",
                request_id=request_id(request),
                method=request.method,
                path=request.path[:_PATH_CHARS],
                address=address,
                key=str(error.__cause__) if error.__cause__ else None,
                error=error.message,
            )
