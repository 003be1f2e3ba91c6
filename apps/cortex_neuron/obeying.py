"""Whom this node obeys: whoever sends one of the tokens in its file; everybody without one."""

from collections.abc import Mapping
from pathlib import Path

import structlog

from cortex_core.access import digest_of, is_one_of
from cortex_core.errors import ApiError, InvalidApiKey
from cortex_core.loading import ConfigError
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.envelopes import Named, log_crash
from cortex_uplink.hush import Hush
from cortex_uplink.request_parser import Head

log = structlog.get_logger()

#: What anybody may ask: it says nothing of the machine.
_OPEN = frozenset({"/version"})
_PATH_CHARS = 200


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
    """The guard of the node's routes; `tokens` may change at any time."""

    def __init__(self, tokens: tuple[bytes, ...]) -> None:
        self.tokens = tokens
        self._hush = Hush("token.refused_often")

    def preview(self, head: Head) -> None:
        """Let a request go on whose body is on its way. Raises InvalidApiKey."""
        self._look(head.path, head.headers)

    async def check(self, request: ClientRequest) -> None:
        """Let a request pass. Raises InvalidApiKey."""
        try:
            self._look(request.path, request.headers)
        except InvalidApiKey:
            await self._hush.slow_down(request.connection.address)
            raise

    def tell(self, request: Named, error: ApiError, raised: Exception) -> None:
        """Log a request that failed, if that is worth a line."""
        if not isinstance(error, InvalidApiKey) or not isinstance(request, ClientRequest):
            log_crash(request, error, raised)
        elif self._hush.worth_a_line(address := request.connection.address):
            log.warning(
                "token.refused",
                request_id=request.name,
                method=request.method,
                path=request.path[:_PATH_CHARS],
                address=address,
            )

    def _look(self, path: str, headers: Mapping[str, str]) -> None:
        if self.tokens and path not in _OPEN and not is_one_of(self.tokens, headers):
            raise InvalidApiKey("this node obeys only who sends its token")
