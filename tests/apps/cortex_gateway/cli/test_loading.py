"""How a load is judged from views that may be old."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_gateway.cli.loading import APPEAR_SECS, STALE_SECS, Failed, Underway, Up, judge
from cortex_gateway.cli.view import Fleet
from tests.apps.cortex_gateway.cli import fake_cortex

STATUSES = ["queued", "loading", "loaded", "unloading", "recovering", "failed", "unloaded", "new"]


def seeing(**status_on: str) -> Fleet:
    """Return a fleet with the model `m` in a status on each named node."""
    nodes: list[dict[str, Any]] = [
        fake_cortex.node(name, models=[{"id": "m", "status": status}])
        for name, status in status_on.items()
    ]
    return Fleet.model_validate(fake_cortex.fleet(*nodes))


@pytest.mark.parametrize(
    ("fleet", "node", "seen", "waited_secs", "verdict"),
    [
        (seeing(a="loaded"), None, False, 0, Up("a")),
        (seeing(a="failed", b="loaded"), None, True, 99, Up("b")),
        (seeing(a="loading"), "a", False, 999, Underway("loading", "a")),
        (seeing(a="loaded", b="loading"), "b", False, 0, Underway("loading", "b")),
        # An old failure is believed once it stays; one that we saw happen, at once.
        (seeing(a="failed"), "a", False, STALE_SECS - 1, Underway("queued")),
        (seeing(a="failed"), "a", False, STALE_SECS, Failed("m failed on a: no reason was given")),
        (seeing(a="failed"), "a", True, 0, Failed("m failed on a: no reason was given")),
        # Files on the disk are no load; it may still appear.
        (seeing(a="unloaded"), "a", False, APPEAR_SECS - 1, Underway("queued")),
    ],
)
def test_verdicts(
    fleet: Fleet, node: str | None, seen: bool, waited_secs: float, verdict: object
) -> None:
    """The table of what is seen and what it means."""
    assert judge(fleet, "m", node, seen=seen, waited_secs=waited_secs) == verdict


@pytest.mark.parametrize(("seen", "patience"), [(True, STALE_SECS), (False, APPEAR_SECS)])
def test_a_model_that_is_nowhere_is_given_up(seen: bool, patience: float) -> None:
    """Nobody waits for ever for what was unloaded by someone else."""
    assert isinstance(judge(seeing(), "m", None, seen=seen, waited_secs=patience), Failed)
    assert isinstance(judge(seeing(), "m", None, seen=seen, waited_secs=patience - 1), Underway)


@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(STATUSES)),
    st.sampled_from([None, "a", "b"]),
    st.booleans(),
)
def test_waiting_always_ends_unless_it_is_on_its_way(
    statuses: dict[str, str], node: str | None, seen: bool
) -> None:
    """After the longest patience only a load under way somewhere is still waited for."""
    verdict = judge(seeing(**statuses), "m", node, seen=seen, waited_secs=APPEAR_SECS)
    there = [status for name, status in statuses.items() if node in (None, name)]

    if "loaded" in there:
        assert isinstance(verdict, Up)
    elif {"queued", "loading", "unloading", "recovering"} & set(there):
        assert isinstance(verdict, Underway)
    else:
        assert isinstance(verdict, Failed)
