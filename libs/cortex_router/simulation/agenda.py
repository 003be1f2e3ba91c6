"""Simulated time: what happens next, and when. Equal times in the order they were entered."""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any


class Agenda:
    """What will happen."""

    __slots__ = ("_count", "_heap", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = 0

    def enter(self, at: float, action: Callable[[Any], None], subject: Any) -> None:
        """Have `action(subject)` called at that time."""
        self._count += 1
        heappush(self._heap, (at, self._count, action, subject))

    def next_before(self, at: float) -> tuple[Callable[[Any], None], Any] | None:
        """Go on to the next action no later than `at` and return it; None when there is none."""
        if not self._heap or self._heap[0][0] > at:
            return None
        self.now, _, action, subject = heappop(self._heap)
        return action, subject
