"""Failures that anybody can cause at any rate: the first are told one by one, the rest together.

Of each address the first ten of a minute are worth a line of their own. How many more there were
is told once, at the end of the minute, so nothing is kept back.
"""

import asyncio
from typing import Final

import structlog

log = structlog.get_logger()

_LINES: Final = 10
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
        if address not in counts and len(counts) >= _MOST_ADDRESSES:
            address = _ANYWHERE
        count = counts[address] = counts.get(address, 0) + 1
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._window_secs, self._tell)
        return count <= _LINES

    def _tell(self) -> None:
        counts, self._counts, self._timer = self._counts, {}, None
        for address, count in counts.items():
            if count > _LINES:
                log.warning(self._event, address=address, more=count - _LINES)
