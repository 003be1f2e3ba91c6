"""What is left of a key's limits: pure bookkeeping, given the time and told what happened.

1. requests under way are at most `max_in_flight`;
2. requests let in are at most `requests_per_minute` in any sixty seconds; refused ones are free;
3. tokens are counted when they are known, at the end of a request. Until then its prompt counts by
   its rough size, so that a crowd of requests does not slip in at once. An answer under way is
   never cut off: the last ones let in may go beyond the limit, and the next ones wait for it.

A prompt that is larger than the whole limit is let in when nothing else counts: a rough size is no
reason to refuse for ever.
"""

from typing import NamedTuple

from cortex_core.access import Grant
from cortex_core.minute import Minute

#: Nobody can tell when a request under way ends.
_SOON_SECS = 1.0


class Over(NamedTuple):
    """A request beyond a limit: which, how much that is, and when to try again."""

    limit: str
    most: int
    retry_after_secs: float


class Left(NamedTuple):
    """One limit of a key as its holder is told: how much, what is left, when all of it is back."""

    limit: str
    most: int
    remaining: int
    reset_secs: float


class Allowance:
    """The use that one key makes of its limits."""

    __slots__ = ("_promised", "_requests", "_tokens", "in_flight")

    def __init__(self) -> None:
        self.in_flight = 0
        self._promised = 0
        self._requests = Minute()
        self._tokens = Minute()

    def enter(self, grant: Grant, tokens: int, now: float) -> Over | int:
        """Let a request with a prompt of about `tokens` in, or say which limit it is beyond.

        Returns what `leave` must be given at its end.
        """
        if (most := grant.max_in_flight) is not None and self.in_flight >= most:
            return Over("max_in_flight", most, _SOON_SECS)
        if (most := grant.requests_per_minute) is not None and self._requests.total(now) >= most:
            wait = self._requests.secs_until(most - 1, now)
            return Over("requests_per_minute", most, wait)
        promised = 0
        if (most := grant.tokens_per_minute) is not None:
            promised = min(max(tokens, 1), most)
            if self._tokens.total(now) + self._promised + promised > most:
                room = most - promised - self._promised
                wait = self._tokens.secs_until(room, now) if room >= 0 else 0.0
                return Over("tokens_per_minute", most, max(wait, _SOON_SECS))
        if grant.requests_per_minute is not None:
            self._requests.spend(1, now)
        self.in_flight += 1
        self._promised += promised
        return promised

    def leave(self, grant: Grant, promised: int, tokens: int, now: float) -> None:
        """Let a request out that used `tokens`."""
        self.in_flight -= 1
        self._promised -= promised
        if grant.tokens_per_minute is not None and tokens:
            self._tokens.spend(tokens, now)

    def left(self, grant: Grant, now: float) -> tuple[Left, ...]:
        """Return what is left of the limits by the minute."""
        told: list[Left] = []
        if (most := grant.requests_per_minute) is not None:
            used = self._requests.total(now)
            wait = self._requests.secs_until_empty(now)
            told.append(Left("requests", most, max(0, most - used), wait))
        if (most := grant.tokens_per_minute) is not None:
            used = self._tokens.total(now) + self._promised
            wait = self._tokens.secs_until_empty(now)
            told.append(Left("tokens", most, max(0, most - used), wait))
        return tuple(told)
