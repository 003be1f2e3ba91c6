"""How many requests may be sent a second time: a few, and a share of those that came lately.

One replica that fails is replaced at no cost worth mentioning. When all of them fail, whoever sends
everything again doubles the load where it can be borne least, and keeps down what was about to come
back. So retries are counted together, whatever model and node they are for.
"""

from typing import Final, NamedTuple

#: The last so many seconds count, in whole ones.
WINDOW_SECS: Final = 10
#: Of the requests that came in them, this share may be sent again.
SHARE: Final = 0.2
#: So many may be in any case: where few ask, one failure is already a large share.
FLOOR: Final = 10
_NONE: Final = (0,) * WINDOW_SECS


class RetryBudget(NamedTuple):
    """What came and what was sent again, second by second; the newest, `second`, stands last.

    `now` is a reading, in seconds, of any clock that is always the same one. When it goes back,
    what was counted is forgotten.
    """

    second: int = 0
    requests: tuple[int, ...] = _NONE
    retries: tuple[int, ...] = _NONE

    def asked(self, now: float) -> "RetryBudget":
        """Return the budget after a request came."""
        second, requests, retries = self._at(now)
        return RetryBudget(second, (*requests[:-1], requests[-1] + 1), retries)

    def retried(self, now: float) -> "RetryBudget | None":
        """Return the budget after one was sent again; None when it must not be."""
        at = self._at(now)
        if at.left(now) < 1:
            return None
        return RetryBudget(at.second, at.requests, (*at.retries[:-1], at.retries[-1] + 1))

    def left(self, now: float) -> int:
        """Return how many may be sent again now."""
        at = self._at(now)
        return max(0, FLOOR + int(SHARE * sum(at.requests)) - sum(at.retries))

    def _at(self, now: float) -> "RetryBudget":
        """Return the budget without what is too old by now."""
        second = int(now)
        passed = second - self.second
        if passed == 0:
            return self
        if not 0 < passed < WINDOW_SECS:
            return RetryBudget(second)
        fresh = _NONE[:passed]
        return RetryBudget(
            second, (*self.requests[passed:], *fresh), (*self.retries[passed:], *fresh)
        )
