"""How much was spent in the last minute, kept by the second. The clock is an argument.

What was spent counts for sixty seconds at least and for sixty-one at most, so whoever keeps the
total below a limit never lets more than the limit through in any sixty seconds, wherever they
begin. It takes 62 numbers, however much is spent. The well-kept libraries for this have a clock of
their own, and cannot count what is known only once it has been spent, as tokens are.
"""

from collections import deque
from math import inf
from typing import Final

_COUNTS_FOR: Final = 61


class Minute:
    """What was spent lately. `now` is in seconds, of any clock that rarely goes back."""

    __slots__ = ("_oldest_ends", "_spent", "_total")

    def __init__(self) -> None:
        self._spent: deque[list[int]] = deque()
        self._total = 0
        self._oldest_ends = inf

    def total(self, now: float) -> int:
        """Return what the last minute cost."""
        # On the path of every request of a limited key.
        if now >= self._oldest_ends:
            self._forget(now)
        return self._total

    def spend(self, amount: int, now: float) -> None:
        """Count an amount."""
        self.total(now)
        second = int(now)
        # A clock that went back must not bring what it spends out of order.
        if self._spent and self._spent[-1][0] >= second:
            self._spent[-1][1] += amount
        else:
            if not self._spent:
                self._oldest_ends = second + _COUNTS_FOR
            self._spent.append([second, amount])
        self._total += amount

    def secs_until(self, most: int, now: float) -> float:
        """Return in how many seconds the total is at most `most`, if nothing more is spent."""
        left = self.total(now)
        for second, amount in self._spent:
            if left <= most:
                break
            left -= amount
            ends = second + _COUNTS_FOR - now
            if left <= most:
                return ends
        return 0.0

    def secs_until_empty(self, now: float) -> float:
        """Return in how many seconds nothing of it counts any more."""
        self.total(now)
        return self._spent[-1][0] + _COUNTS_FOR - now if self._spent else 0.0

    def _forget(self, now: float) -> None:
        spent = self._spent
        while spent and spent[0][0] + _COUNTS_FOR <= now:
            self._total -= spent.popleft()[1]
        self._oldest_ends = spent[0][0] + _COUNTS_FOR if spent else inf
