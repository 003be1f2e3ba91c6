"""What happens for every request costs the same on a large fleet as on a small one."""

import time
from collections.abc import Callable

import pytest

from cortex_router import (
    NodeObserved,
    Policy,
    RequestEnded,
    RequestSent,
    RouteRequest,
    apply,
    decide,
)
from tests.bench.fleets import NOW, Fleet, fleet_of

SMALL, LARGE = 100, 5000
#: 50 times the nodes. The fastest of many runs is compared, and generously: an accidental look at
#: every node would cost 50 times as much.
FACTOR = 10


def fastest_secs(action: Callable[[], object]) -> float:
    """The fastest of many times: what the action costs when nobody disturbs it."""
    times = []
    for _ in range(200):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return min(times)


def actions(fleet: Fleet) -> dict[str, Callable[[], object]]:
    """What happens for every request, and at every poll of one node."""
    view, node = fleet.view, fleet.nodes[-1]
    model = node.replicas[0].model
    busy = apply(view, RequestSent(node=node.name, model=model, at=1.0, session="s", tokens=9))
    ask = RouteRequest(model=model, session="s")
    return {
        "decide": lambda: decide(view, RouteRequest(model=model), Policy(), NOW),
        "decide, session": lambda: decide(busy, ask, Policy(), NOW),
        "sent": lambda: apply(
            busy, RequestSent(node=node.name, model=model, at=1.0, session="s2", tokens=9)
        ),
        "ended": lambda: apply(busy, RequestEnded(node=node.name, model=model, at=1.0)),
        "observed": lambda: apply(busy, NodeObserved(node)),
    }


@pytest.fixture(scope="module")
def costs() -> dict[str, tuple[float, float]]:
    """The seconds of each action on the small fleet and on the large one.

    Both have as many replicas of each model; only the number of nodes differs.
    """
    small, large = actions(fleet_of(SMALL, 20, 2)), actions(fleet_of(LARGE, 1000, 2))
    return {what: (fastest_secs(small[what]), fastest_secs(large[what])) for what in small}


@pytest.mark.parametrize("what", ["decide", "decide, session", "sent", "ended", "observed"])
def test_the_size_of_the_fleet_is_not_felt(
    costs: dict[str, tuple[float, float]], what: str
) -> None:
    """50 times the nodes, and nowhere near 50 times the time."""
    small, large = costs[what]

    assert large < FACTOR * small
