"""Three models over memory for two: swaps and waits, by turns and first come, first served."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random

from cortex_router import Profile, Swapping, wait_bound_secs
from tests.libs.cortex_router.stateful import NodeModel
from tests.libs.cortex_router.stateful_node import Habits

LOAD_SECS, UNLOAD_SECS, SEATS, PLACES = 8.0, 1.0, 4, 2
SERVICE_SECS = (1.0, 3.0)


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a trace."""

    at: float
    model: str
    service_secs: float


@dataclass(frozen=True, slots=True)
class Result:
    """What a trace came to: loads, and the waits for a seat."""

    name: str
    loads: int
    waits: tuple[float, ...]

    @property
    def p50(self) -> float:
        """The median wait in seconds."""
        return sorted(self.waits)[len(self.waits) // 2]

    @property
    def p95(self) -> float:
        """What nineteen of twenty waits stay below."""
        return sorted(self.waits)[int(len(self.waits) * 0.95)]

    @property
    def worst(self) -> float:
        """The longest wait."""
        return max(self.waits)


def trace(pattern: Sequence[str], *, every_secs: float, length_secs: float, seed: int) -> list[Ask]:
    """Return requests for the models of a pattern over and over, at jittered times."""
    random, asks, at = Random(seed), list[Ask](), 0.0
    for model in cycle(pattern):
        at += every_secs * random.uniform(0.5, 1.5)
        if at > length_secs:
            return asks
        asks.append(Ask(at, model, random.uniform(*SERVICE_SECS)))
    return asks


#: What is asked for, over and over.
TRACES = {
    "A B C in turn": ("A", "B", "C"),
    "A x 6 B A x 6 C": ("A",) * 6 + ("B",) + ("A",) * 6 + ("C",),
    "A B A A C": ("A", "B", "A", "A", "C"),
}


def by_turns(asks: Sequence[Ask], swapping: Swapping, name: str = "by turns") -> Result:
    """Return what the library's scheduler makes of a trace."""
    node = NodeModel(
        (8 * PLACES,),
        {model: Profile(id=model, size_mb=8) for model in sorted({ask.model for ask in asks})},
        habits=Habits(
            service_secs=SERVICE_SECS,
            load_secs=(LOAD_SECS, LOAD_SECS),
            unload_secs=(UNLOAD_SECS, UNLOAD_SECS),
            seats=SEATS,
            max_waiting=len(asks),
            max_per_principal=SEATS,
        ),
        swapping=swapping,
    )
    waits: list[float] = []
    node.on_seat = waits.append
    for ask in asks:
        node.pass_time(ask.at - node.time)
        node.request("ada", ask.model, service_secs=ask.service_secs)
    node.let_everything_go()
    return Result(name, node.starts, tuple(waits))


def bound_secs(swapping: Swapping, *, drain_secs: float) -> float:
    """Return the library's bound on the wait for a load, when both other models are older."""
    return wait_bound_secs(
        older=2,
        quantum_secs=swapping.amortise * LOAD_SECS,
        drain_secs=drain_secs,
        unload_secs=UNLOAD_SECS,
        load_secs=LOAD_SECS,
    )


def first_come_first_served(asks: Sequence[Ask]) -> Result:
    """Return what strict order makes of it: load when asked, the least recent idle one leaves."""
    busy: dict[str, list[float]] = {}
    used: dict[str, float] = {}
    line, loads, waits = 0.0, 0, list[float]()
    for ask in asks:
        line = max(line, ask.at)
        if ask.model not in busy:
            if len(busy) == PLACES:
                ends = {model: max(seats, default=0.0) for model, seats in busy.items()}
                line = max(line, min(ends.values()))
                idle = [model for model, end in ends.items() if end <= line]
                victim = min(idle, key=lambda model: (used[model], model))
                del busy[victim]
                line += UNLOAD_SECS
            line += LOAD_SECS
            loads += 1
            busy[ask.model] = []
        seats = busy[ask.model]
        if len(seats) == SEATS:
            line = max(line, heapq.heappop(seats))
        heapq.heappush(seats, line + ask.service_secs)
        used[ask.model] = line
        waits.append(line - ask.at)
    return Result("first come first served", loads, tuple(waits))


def table(ways: dict[str, Swapping], *, length_secs: float, seed: int) -> Iterator[str]:
    """Return all traces by all ways, a line each."""
    yield f"{'trace':16} {'every':>6} {'way':24} {'loads':>6} {'p50':>8} {'p95':>8} {'worst':>8}"
    for name, pattern in TRACES.items():
        for every in (1.5, 2.0, 5.0, 10.0):
            asks = trace(pattern, every_secs=every, length_secs=length_secs, seed=seed)
            results = [first_come_first_served(asks)]
            results += [by_turns(asks, swapping, way) for way, swapping in ways.items()]
            for one in results:
                yield (
                    f"{name:16} {every:4.1f} s {one.name:24} {one.loads:6d} "
                    f"{one.p50:6.1f} s {one.p95:6.1f} s {one.worst:6.1f} s"
                )
