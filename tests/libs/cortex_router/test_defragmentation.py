"""Engines that outlast many loads of their neighbours start anew while nobody uses them."""

from dataclasses import replace

import pytest

from cortex_router import Node, Status, due_for_restart
from tests.libs.cortex_router.fleets import node, replica

NOW = 1000.0
OLD = replace(replica("old", last_used=900.0), loaded_in_cycle=1)
YOUNG = replace(replica("young", last_used=900.0), loaded_in_cycle=9)


def worn(*held: object, **more: object) -> Node:
    """A node that has carried out eleven loads."""
    return replace(node("a", *held), load_cycles=11, **more)  # type: ignore[arg-type]


def test_whoever_outlasted_enough_loads_is_due() -> None:
    """Ten loads came after it."""
    assert due_for_restart(worn(OLD, YOUNG), 10, NOW) == "old"


def test_the_one_that_outlasted_most_comes_first() -> None:
    """One at a time."""
    assert due_for_restart(worn(YOUNG, OLD), 2, NOW) == "old"


@pytest.mark.parametrize(
    "held",
    [
        replace(OLD, in_flight=1),
        replace(OLD, queued=1),
        replace(OLD, last_used=NOW - 5),
        replace(OLD, loaded_at=NOW - 5),
        replace(OLD, status=Status.RECOVERING),
        replace(OLD, loaded_in_cycle=None),
        replace(OLD, loaded_in_cycle=2),
    ],
)
def test_whoever_is_used_new_or_unknown_is_left_alone(held: object) -> None:
    """A restart must cost nobody anything."""
    assert due_for_restart(worn(held), 10, NOW) is None


def test_nobody_is_due_while_something_comes_or_goes() -> None:
    """One change at a time."""
    assert due_for_restart(worn(OLD, replica("new", Status.LOADING)), 10, NOW) is None


def test_zero_turns_it_off_and_silence_does_too() -> None:
    """And a node that does not count its loads is never restarted."""
    assert due_for_restart(worn(OLD), 0, NOW) is None
    assert due_for_restart(replace(worn(OLD), load_cycles=None), 10, NOW) is None
    assert due_for_restart(replace(worn(OLD), healthy=False), 10, NOW) is None
