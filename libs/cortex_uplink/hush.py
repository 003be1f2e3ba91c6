"""Failures that anybody can cause at any rate: the first are told one by one, the rest together.

Of each address the first ten of a minute are worth a line of their own. How many more there were
is told once, at the end of the minute, so nothing is kept back. Who goes on gets its answers late:
so a client that tries keys costs next to nothing, and one that makes a mistake notices nothing.
"""

import asyncio
from typing import Final

import structlog

log = structlog.get_logger()

_LINES: Final = 10
_AT_ONCE: Final = 20
_LATE_SECS: Final = 1.0
_WINDOW_SECS: Final = 60.0
#: Then those of further addresses are counted together.
_MOST_ADDRESSES: Final = 1000
_ANYWHERE: Final = "elsewhere"


class Hush:
    """Counts failures; `event` is what a line about many of them is called."""

    def __init__(self, event: str, window_secs: float = _WINDOW_SECS) -> None:
        self._event = event
        self._window_secs = window_secs
        self._counts: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def worth_a_line(self, address: str) -> bool:
        """Count a failure, and tell whether it is to be logged by itself."""
        counts = self._counts
        address = self._where(address)
        count = counts[address] = counts.get(address, 0) + 1
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._window_secs, self._tell)
        return count <= _LINES

    async def slow_down(self, address: str) -> None:
        """Have whoever failed often lately wait for its answer."""
        if self._counts.get(self._where(address), 0) >= _AT_ONCE:
            await asyncio.sleep(_LATE_SECS)

    def _where(self, address: str) -> str:
        full = len(self._counts) >= _MOST_ADDRESSES
        return _ANYWHERE if full and address not in self._counts else address

    def _tell(self) -> None:
        counts, self._counts, self._timer = self._counts, {}, None
        for address, count in counts.items():
            if count > _LINES:
                log.warning(self._event, address=address, more=count - _LINES)
