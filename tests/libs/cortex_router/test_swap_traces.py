"""Three models over memory for two: batches and bounded waits, measured on seeded traces."""

import pytest

from cortex_router import Swapping
from tests.soak.swaps import (
    SERVICE_SECS,
    TRACES,
    Result,
    bound_secs,
    by_turns,
    first_come_first_served,
    trace,
)

MINUTES_5 = 300.0
SWAPPING = Swapping()


def both(pattern: str, *, every_secs: float, seed: int) -> tuple[Result, Result]:
    """One trace, by turns and first come first served."""
    asks = trace(TRACES[pattern], every_secs=every_secs, length_secs=MINUTES_5, seed=seed)
    return by_turns(asks, SWAPPING), first_come_first_served(asks)


@pytest.mark.parametrize("seed", [1, 2])
def test_alternating_models_are_served_in_batches(seed: int) -> None:
    """A third of the swaps at most, a lower p95 wait, and the worst wait within the bound."""
    ours, theirs = both("A B C in turn", every_secs=1.5, seed=seed)

    assert 3 * ours.loads <= theirs.loads
    assert ours.p95 < theirs.p95
    assert ours.worst <= bound_secs(SWAPPING, drain_secs=SERVICE_SECS[1])


def test_a_favourite_is_not_worn_out_by_the_others() -> None:
    """A B A A C: fewer swaps, shorter waits."""
    ours, theirs = both("A B A A C", every_secs=1.5, seed=1)

    assert ours.loads < theirs.loads / 2
    assert ours.p95 < theirs.p95
    assert ours.worst <= bound_secs(SWAPPING, drain_secs=SERVICE_SECS[1])


def test_single_requests_do_not_hold_up_a_steady_stream() -> None:
    """Six of A to each B or C: the median request does not wait for somebody else's load."""
    ours, theirs = both("A x 6 B A x 6 C", every_secs=2.0, seed=1)

    assert ours.p50 < 1.0
    assert ours.p50 <= theirs.p50


def test_a_load_each_is_what_rare_requests_take() -> None:
    """Where requests are rarer than loads take, nobody waits for a batch that never comes."""
    ours, theirs = both("A B C in turn", every_secs=10.0, seed=1)

    assert ours.p95 < theirs.p95
    assert ours.worst < 2 * 9.0
