"""Which routes need which key, while there are keys: all do that are not named here.

It stands before every route and before it is known whether there is one: whoever has no key does
not even learn that.
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
from cortex_uplink.request_parser import Head

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
        self._hush = Hush("access.refused_often")

    def preview(self, head: Head) -> None:
        """Let a request go on that has a good key: a body may be large. Raises InvalidApiKey."""
        door = self._door()
        if door is not None and head.path.rstrip("/") not in _OPEN:
            door.identify(head.headers)

    async def check(self, request: ClientRequest) -> None:
        """Let a request pass. Raises InvalidApiKey or NotPermitted."""
        door, path = self._door(), request.path
        if door is None or path.rstrip("/") in _OPEN:
            return
        try:
            request.grant = door.identify(request.headers)
        except InvalidApiKey:
            await self._hush.slow_down(request.connection.address)
            raise
        if not path.startswith(_FOR_CLIENTS):
            door.require_admin(request.grant)

    def telling(self, other: OnFailure) -> OnFailure:
        """Return what logs requests without a good key, and leaves the rest to `other`."""

        def tell(request: Named, error: ApiError, raised: Exception) -> None:
            if not isinstance(error, InvalidApiKey) or not isinstance(request, ClientRequest):
                other(request, error, raised)
            elif self._hush.worth_a_line(address := request.connection.address):
                log.warning(
                    "access.refused",
                    request_id=request_id(request),
                    method=request.method,
                    path=request.path[:_PATH_CHARS],
                    address=address,
                    key=str(error.__cause__) if error.__cause__ else None,
                    error=error.message,
                )

        return tell


def grant_of(request: Request) -> Grant | None:
    """Return what the key of a request allows that `Guard` let pass; None without keys."""
    grant: Grant | None = request.ctx.grant
    return grant
