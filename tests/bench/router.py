"""What the router costs: a decision that finds a replica, one that finds a place, and an event."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import quantiles
from typing import Any

from cortex_router import (
    STRATEGIES,
    CatalogueChanged,
    Event,
    FleetView,
    NodeForgotten,
    NodeLost,
    NodeObserved,
    Policy,
    RequestEnded,
    RequestSent,
    RouteRequest,
    Rules,
    apply,
    decide,
)
from tests.bench.fleets import LARGE, NOW, SMALL, fleet_of, nothing_derived, with_sessions
from tests.bench.reporting import Cell, Report, Table

METHOD = """\
Processor time of one thread. Every node has two devices (48,000 and 24,000 MiB), nearly full; last
uses are spread over 1,000 s. warm: somebody serves the model; session: of one of 500 conversations.
cold: nobody has the model, and there is free room for it, or somebody has to leave. fresh: the
first decision after every node was observed anew, so that nothing is worked out yet. In µs."""
#: Nodes, models, replicas on each node.
SHAPES = ((10, 20, 6), (1000, 200, 6), (1000, 200, 20))
SIZES = (10, 100, 1000, 10_000)
SMALLEST = SIZES[0]
WARM, COLD, FRESH, EVENTS = 5000, 200, 10, 2000


@dataclass(frozen=True, slots=True)
class Timing:
    """How long something took, each time, in microseconds."""

    what: str
    micros: Sequence[float]

    def row(self) -> tuple[Cell, ...]:
        """Return median, 99th percentile and worst."""
        cuts = quantiles(self.micros, n=100)
        return self.what, cuts[49], min(cuts[98], max(self.micros)), max(self.micros)


def measure() -> Report:
    """Measure decisions and events."""
    decisions = [one for shape in SHAPES for one in _decisions(*shape)]
    strategies = list(_strategies())
    events = [one for size in SIZES for one in _events(size)]
    columns = ("", "median", "p99", "max")
    return Report(
        name="router",
        method=METHOD,
        tables=[
            Table(title=title, columns=columns, rows=[one.row() for one in timings])
            for title, timings in (
                ("decide: nodes × models, replicas a node", decisions),
                ("decide, somebody has to leave: 1000 × 200, 6, by strategy", strategies),
                ("apply, by nodes", events),
            )
        ],
        samples=[_sample(one) for one in (*decisions, *strategies, *events)],
    )


def _sample(timing: Timing) -> dict[str, Any]:
    return {"what": timing.what, "micros": [round(one, 2) for one in timing.micros]}


def timed(what: str, action: Callable[[int], object], times: int) -> Timing:
    """Return how long `action` takes, given the number of the time."""
    micros = []
    for number in range(times):
        began = time.thread_time_ns()
        action(number)
        micros.append((time.thread_time_ns() - began) / 1000)
    return Timing(what, micros)


def _decisions(nodes: int, models: int, held: int) -> Iterator[Timing]:
    fleet = fleet_of(nodes, models, held)
    name = f"{nodes} × {models}, {held}"
    policy, view = Policy(), fleet.view

    def ask(view: FleetView, model: str, session: str | None = None) -> object:
        return decide(view, RouteRequest(model=model, session=session, tokens=900), policy, NOW)

    yield timed(f"{name}: warm", lambda n: ask(view, fleet.models[n % models]), WARM)
    busy = with_sessions(fleet, 2000)
    yield timed(
        f"{name}: warm, session",
        lambda n: ask(busy, fleet.models[n % models], f"s{n % 500}"),
        WARM,
    )
    for what, model in (("free room", SMALL.id), ("eviction", LARGE.id)):
        fresh = [nothing_derived(view) for _ in range(FRESH)]
        for how, views, times in (("", [view] * COLD, COLD), (", fresh", fresh, FRESH)):
            yield timed(
                f"{name}: cold, {what}{how}", partial(_ask_each, views, model, policy), times
            )


def _ask_each(views: Sequence[FleetView], model: str, policy: Policy, number: int) -> object:
    return decide(views[number], RouteRequest(model=model), policy, NOW)


def _strategies() -> Iterator[Timing]:
    view = with_sessions(fleet_of(1000, 200, 6), 2000)
    for name, strategy in STRATEGIES.items():
        policy = Policy(rules=Rules(strategy=strategy))
        yield timed(name, partial(_ask_each, [view] * COLD, LARGE.id, policy), COLD)


def _events(nodes: int) -> Iterator[Timing]:
    fleet = fleet_of(nodes, 200 if nodes > SMALLEST else 20, 6)
    view = fleet.view

    def event(kind: str, number: int) -> Event:
        node = fleet.nodes[number % nodes]
        model = node.replicas[1].model
        match kind:
            case "sent":
                return RequestSent(
                    node=node.name, model=model, at=2.0, session=f"s{number}", tokens=1000
                )
            case "ended":
                return RequestEnded(node=node.name, model=model, at=2.0)
            case "observed":
                busier = tuple(replace(r, in_flight=1 + number % 3) for r in node.replicas)
                return NodeObserved(replace(node, replicas=busier))
            case "lost":
                return NodeLost(node.name)
            case "forgotten":
                return NodeForgotten(node.name)
            case _:
                return CatalogueChanged(view.profiles, view.aliases)

    for kind in ("sent", "ended", "observed", "catalogue", "lost", "forgotten"):
        times = min(nodes, EVENTS) if kind in {"lost", "forgotten"} else EVENTS
        events = [event(kind, number) for number in range(times + 1)]

        def happen(number: int, events: list[Event] = events) -> None:
            nonlocal view
            view = apply(view, events[number])

        yield timed(f"{nodes}: {kind}", happen, times)
