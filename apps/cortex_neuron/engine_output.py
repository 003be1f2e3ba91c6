"""What an engine writes to its standard error: into our log, bounded, and read for faults.

All of it is read, or the engine would block. The first lines of a burst are logged each as an
event of their own; of a flood one line a second is, with how many were left out. The last lines are
kept for whoever explains how the engine ended. A flood is read no faster than the daemon can bear:
beyond that the engine waits, not the daemon's other clients.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

import structlog

from cortex_neuron.faults import is_poisoned

log = structlog.get_logger()

KEPT_LINES = 50
LONGEST_LINE = 500
#: Lines that are logged one by one before it counts as a flood, and one more for each second.
BURST_LINES = 50
_PIECE = 1 << 16
_FLOOD_PAUSE_SECS = 0.002


class Throttle:
    """So many at once, then one a second."""

    def __init__(self, burst: int, now: float) -> None:
        self._burst = burst
        self._left = float(burst)
        self._at = now
        self.withheld = 0

    def admits(self, now: float) -> bool:
        """Tell whether one more may pass; count it as withheld when not."""
        self._left = min(self._burst, self._left + max(0.0, now - self._at))
        self._at = now
        if self._left < 1:
            self.withheld += 1
            return False
        self._left -= 1
        return True

    def take_withheld(self) -> int:
        """Return how many did not pass since this was asked last."""
        count, self.withheld = self.withheld, 0
        return count


class EngineOutput:
    """Reads one engine's standard error; `poisoned` is called with a line that says so."""

    def __init__(self, title: str, poisoned: Callable[[str], None]) -> None:
        self._title = title
        self._poisoned = poisoned
        self._throttle = Throttle(BURST_LINES, time.monotonic())
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Read until the stream ends."""
        rest = b""
        while piece := await stream.read(_PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            rest = rest[-LONGEST_LINE:]
            for line in lines:
                self._take(line)
            if len(piece) == _PIECE:
                await asyncio.sleep(_FLOOD_PAUSE_SECS)
        self._take(rest)
        if withheld := self._throttle.take_withheld():
            log.warning("engine.said_more", model=self._title, lines=withheld)

    def _take(self, raw: bytes) -> None:
        if not raw.strip():
            return
        line = raw[:LONGEST_LINE].decode(errors="replace").rstrip()
        self.lines.append(line)
        if self._throttle.admits(time.monotonic()):
            withheld = self._throttle.take_withheld()
            more = {"left_out_before": withheld} if withheld else {}
            log.info("engine.said", model=self._title, line=line, **more)
        if is_poisoned(line):
            self._poisoned(line)
