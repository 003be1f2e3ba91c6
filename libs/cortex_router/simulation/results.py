"""What a run measures, and the figures made of it."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum, auto
from typing import Any

#: A model loaded again on the same node so soon after it had to leave should not have left.
THRASH_SECS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Seconds: the median, what 95 and 99 of 100 stay within, and the worst."""

    p50: float
    p95: float
    p99: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Return the spread of `values`, None when there are none."""
        if not values:
            return None
        ordered = sorted(values)
        p50, p95, p99 = (ordered[-(-len(ordered) * p // 100) - 1] for p in (50, 95, 99))
        return cls(p50=p50, p95=p95, p99=p99, worst=ordered[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One run. Every arrival is answered, refused, lost (its node died) or gave up waiting.

    `wait` is from arrival to the first token, `queueing` the part of it before a seat was free.
    `cold_starts` are loads that began, `thrash` those of a model that had to leave the same node
    less than THRASH_SECS before. `utilisation` is the part of loaded seats' time that was used.
    `switches` counts turns of a conversation that went to another node than the turn before.
    `curve` is the wait that so many percent stayed within, from 0 to 100.
    """

    policy: str
    arrivals: int
    answered: int
    refused: int
    lost: int
    gave_up: int
    wait: Spread | None
    queueing: Spread | None
    cold_starts: int
    failed_loads: int
    evictions: int
    thrash: int
    loading_secs: float
    busy_seat_secs: float
    utilisation: float
    turns: int
    switches: int
    share: Mapping[str, int]
    span_secs: float
    curve: tuple[float, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the figures for programs."""
        return asdict(self)


class Why(Enum):
    """Why a request was not answered."""

    REFUSED = auto()
    LOST = auto()
    GAVE_UP = auto()


class Recorder:
    """What is counted while a run goes on."""

    __slots__ = (
        "_evicted_at",
        "_last_node",
        "_unanswered",
        "arrivals",
        "busy_seat_secs",
        "cold_starts",
        "evictions",
        "failed_loads",
        "last_at",
        "loaded_seat_secs",
        "loading_secs",
        "queueing",
        "share",
        "switches",
        "thrash",
        "turns",
        "waits",
    )

    def __init__(self, nodes: Sequence[str]) -> None:
        self.arrivals = 0
        self._unanswered = dict.fromkeys(Why, 0)
        self.cold_starts = self.failed_loads = self.evictions = self.thrash = 0
        self.turns = self.switches = 0
        self.last_at = 0.0
        self.loading_secs = self.busy_seat_secs = self.loaded_seat_secs = 0.0
        self.waits, self.queueing = array("d"), array("d")
        self.share = dict.fromkeys(nodes, 0)
        self._evicted_at: dict[tuple[str, str], float] = {}
        self._last_node: dict[str, str] = {}

    def turn(self, session: str, node: str) -> None:
        """Count a request of a conversation, and whether it went elsewhere than the one before."""
        before = self._last_node.get(session)
        if before is not None:
            self.turns += 1
            self.switches += before != node
        self._last_node[session] = node

    def load_began(self, node: str, model: str, now: float) -> None:
        """Count a cold start, and whether it need not have been."""
        self.cold_starts += 1
        left = self._evicted_at.get((node, model))
        if left is not None and now - left < THRASH_SECS:
            self.thrash += 1

    def evicted(self, node: str, model: str, now: float) -> None:
        """Count a model that had to leave for another."""
        self.evictions += 1
        self._evicted_at[node, model] = now

    def unanswered(self, why: Why, now: float) -> None:
        """Count a request that nobody answered."""
        self._unanswered[why] += 1
        self.last_at = now

    def answered(
        self, node: str, now: float, wait: float, queueing: float, busy_secs: float
    ) -> None:
        """Count an answer."""
        self.last_at = now
        self.waits.append(wait)
        self.queueing.append(queueing)
        self.busy_seat_secs += busy_secs
        self.share[node] += 1

    def results(self, policy: str) -> Results:
        """Return the figures."""
        loaded = self.loaded_seat_secs
        return Results(
            policy=policy,
            arrivals=self.arrivals,
            answered=len(self.waits),
            refused=self._unanswered[Why.REFUSED],
            lost=self._unanswered[Why.LOST],
            gave_up=self._unanswered[Why.GAVE_UP],
            wait=Spread.of(self.waits),
            queueing=Spread.of(self.queueing),
            cold_starts=self.cold_starts,
            failed_loads=self.failed_loads,
            evictions=self.evictions,
            thrash=self.thrash,
            loading_secs=self.loading_secs,
            busy_seat_secs=self.busy_seat_secs,
            utilisation=self.busy_seat_secs / loaded if loaded else 0.0,
            turns=self.turns,
            switches=self.switches,
            share=self.share,
            span_secs=self.last_at,
            curve=_curve(self.waits),
        )


def _curve(values: Sequence[float]) -> tuple[float, ...]:
    if not values:
        return ()
    ordered = sorted(values)
    return tuple(ordered[(len(ordered) - 1) * percent // 100] for percent in range(101))
