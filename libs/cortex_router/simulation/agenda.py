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

    def go_on(self, until: float, after_each: Callable[[], None]) -> None:
        """Let everything happen that is entered for no later than `until`."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, subject = heappop(heap)
            action(subject)
            after_each()
