"""How fast simulated time goes: a million requests, and what a fleet's size costs."""

import random
import time

from cortex_router import Profile
from cortex_router.simulation import (
    Bursts,
    Fleet,
    Machine,
    Model,
    Results,
    Sessions,
    Workload,
    arrivals,
    contender,
    simulate,
)
from tests.bench.reporting import Cell, Report, Table
from tests.libs.cortex_router.simulation.scenes import agents_on

SIZES = (10, 100, 1_000, 10_000)
NODES = 1_000
GROWTH_REQUESTS = 100_000
MODELS = 200
#: The load of the fleet is the same whatever its size.
PER_SEC_AND_NODE = 0.02
METHOD = """\
One process. Machines with 12, 24 or 48 GB, {models} models of 4 to 20 GB (on 10 nodes 20), Zipf,
3 of 10 who come begin a conversation of 6 turns, and bursts; {rate} people a second for each node,
policy lru, seed 1. Every request is decided, sent, answered and ended by the library's own
functions, and every change of a node is told."""


def measure(*, requests: int) -> Report:
    """Measure a run of `requests` over 1,000 nodes, and shorter ones over 10 to 10,000."""
    rows = [_row(size, GROWTH_REQUESTS) for size in SIZES]
    if requests:
        rows.append(_row(NODES, requests))
    columns = ("nodes", "requests", "seconds", "us a request", "cold starts", "wait p95, s")
    return Report(
        name="simulation",
        method=METHOD.format(models=MODELS, rate=PER_SEC_AND_NODE),
        tables=[Table(title="simulated requests", columns=columns, rows=rows), _agents()],
        samples=[dict(zip(columns, row, strict=True)) for row in rows],
    )


def _row(nodes: int, requests: int) -> tuple[Cell, ...]:
    fleet = made_fleet(nodes)
    workload = Workload(
        requests=requests,
        per_sec=PER_SEC_AND_NODE * nodes,
        sessions=Sessions(part=0.3),
        bursts=Bursts(every_secs=300.0, requests=30, length_secs=20.0),
    )
    names = [model.profile.id for model in fleet.models]
    began = time.perf_counter()
    results: Results = simulate(
        fleet, arrivals(workload, names, random.Random(1)), contender("lru", 1)
    )
    took = time.perf_counter() - began
    p95 = results.wait.p95 if results.wait else None
    each = round(took / results.arrivals * 1e6)
    return (str(nodes), results.arrivals, took, each, results.cold_starts, p95)


def _agents() -> Table:
    """Return how 24 agents that share a 40 kB system prompt, and send no key, use two nodes."""
    rows: list[tuple[Cell, ...]] = []
    for title, speeds, seats in (
        ("equal", (1.0, 1.0), 4),
        ("2 to 1, 16 seats", (2.0, 1.0), 16),
        ("2 to 1, 4 seats", (2.0, 1.0), 4),
    ):
        for concurrency in (1, 8, 24):
            for in_turns in (False, True):
                results = agents_on(speeds, concurrency, in_turns=in_turns, seats=seats)
                share = " / ".join(str(count - 1) for count in results.share.values())
                order = "in turns" if in_turns else "as answered"
                moved = f"{results.switches} / {results.turns}"
                rows.append((title, concurrency, order, share, moved))
    return Table(
        title="24 conversations of 6 turns on two nodes",
        columns=("nodes", "at once", "order", "requests", "switches / turns"),
        rows=rows,
    )


def made_fleet(nodes: int) -> Fleet:
    """Return so many mismatched machines."""
    draw = random.Random(1)
    return Fleet(
        models=tuple(
            Model(
                profile=Profile(
                    id=f"m{n:03}", size_mb=draw.choice([4_000, 7_000, 9_000, 14_000, 20_000])
                )
            )
            for n in range(min(MODELS, 2 * nodes))
        ),
        machines=tuple(
            Machine(
                name=f"n{n:05}",
                devices_mb=draw.choice([(12_000,), (24_000,), (24_000, 24_000)]),
                disk_mb_s=draw.choice([500.0, 1_000.0, 2_000.0]),
                decode_tok_s=draw.choice([30.0, 60.0]),
            )
            for n in range(nodes)
        ),
    )
