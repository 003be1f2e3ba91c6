"""A timer that costs nothing to put off: it looks, and is told when to look again."""

import asyncio
from collections.abc import Callable
from math import inf


class LazyTimer:
    """Calls `look` at the time asked for or before; `look` knows what is really due."""

    __slots__ = ("_at", "_handle", "_look", "_loop")

    def __init__(self, look: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._look = look
        self._handle: asyncio.TimerHandle | None = None
        self._at = inf

    def look_by(self, at: float) -> None:
        """Look at `at` in the loop's time at the latest, once."""
        if self._handle is not None:
            if self._at <= at:
                return
            self._handle.cancel()
            self._handle = None
        if at < inf:
            self._at = at
            self._handle = self._loop.call_at(at, self._rung)

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _rung(self) -> None:
        self._handle = None
        self._look()
