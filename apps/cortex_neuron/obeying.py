"""Whom this node obeys: whoever sends one of the tokens in its file; everybody without one."""

from pathlib import Path

import structlog
from sanic import Request

from cortex_core.access import digest_of, is_one_of
from cortex_core.errors import InvalidApiKey
from cortex_core.loading import ConfigError
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.envelopes import Named, request_id
from cortex_uplink.hush import Hush

log = structlog.get_logger()

#: What anybody may ask: it says nothing of the machine.
_OPEN = frozenset({"/version"})


def read_tokens(path: Path | None) -> tuple[bytes, ...]:
    """Return the digests of a file's tokens, one a line. Raises ConfigError when there is none."""
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"token_file: {path}: cannot be read: {error}") from error
    digests = tuple(digest_of(token) for line in lines if (token := line.strip()))
    if not digests:
        raise ConfigError(f"token_file: {path}: has no token in it")
    return digests


class Obedience:
    """Checks each request; `tokens` may change at any time, and none let everybody in."""

    def __init__(self, tokens: tuple[bytes, ...]) -> None:
        self.tokens = tokens
        self._hush = Hush("token.refused_often")

    async def middleware(self, request: Request) -> None:
        """Check a request that Sanic hears of; direct routes check theirs. Raises InvalidApiKey."""
        self.check(request)

    def check(self, request: Named) -> None:
        """Let a request pass. Raises InvalidApiKey."""
        if not self.tokens or request.path in _OPEN or is_one_of(self.tokens, request.headers):
            return
        address = request.connection.address if isinstance(request, ClientRequest) else request.ip
        if self._hush.worth_a_line(address):
            log.warning(
                "token.refused",
                request_id=request_id(request),
                method=request.method,
                path=request.path[:200],
                address=address,
            )
        raise InvalidApiKey("this node obeys only who sends its token")
