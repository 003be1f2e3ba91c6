"""Who waits for a load, gateway by gateway: each speaks for its own clients only.

A gateway repeats its intent for as long as somebody waits there, and says so when nobody does any
more. What one withdraws or forgets to repeat leaves the others' alone. Times are Unix seconds.
"""

from dataclasses import dataclass

from cortex_core.wire import Waiting


@dataclass(frozen=True, slots=True)
class Intent:
    """What one gateway said last: how many wait there, since when the oldest does."""

    count: int
    since: float
    heard_at: float


class Intents:
    """The intents of all gateways for one model."""

    def __init__(self) -> None:
        self._by: dict[str, Intent] = {}

    def hear(self, gateway: str, waiting: Waiting, now: float) -> None:
        """Take in what a gateway says; with a count of 0 it says that nobody waits any more."""
        if waiting.count == 0:
            self._by.pop(gateway, None)
            return
        since = now - waiting.oldest_secs
        if (before := self._by.get(gateway)) is not None:
            since = min(since, before.since)
        self._by[gateway] = Intent(waiting.count, since, now)

    def lapse(self, now: float, after_secs: float) -> None:
        """Forget the gateways that were not heard of for longer than that."""
        self._by = {
            who: intent for who, intent in self._by.items() if now - intent.heard_at <= after_secs
        }

    @property
    def count(self) -> int:
        """How many wait, in all gateways."""
        return sum(intent.count for intent in self._by.values())

    @property
    def since(self) -> float | None:
        """Since when the oldest of them does; None: nobody waits."""
        return min((intent.since for intent in self._by.values()), default=None)
