"""The view changes through `apply`, and only so."""

import pytest

from cortex_router import (
    CatalogueChanged,
    FleetView,
    NodeForgotten,
    NodeLost,
    NodeObserved,
    Profile,
    Status,
    apply,
)
from tests.libs.cortex_router.fleets import node, replica


def test_an_observed_node_replaces_its_older_self() -> None:
    """One node a name, sorted."""
    view = apply(apply(FleetView(), NodeObserved(node("b"))), NodeObserved(node("a")))
    view = apply(view, NodeObserved(node("b", replica("m"))))

    assert [(one.name, len(one.replicas)) for one in view.nodes] == [("a", 0), ("b", 1)]


def test_a_lost_node_keeps_what_it_held() -> None:
    """Requests for its models wait instead of hearing 404."""
    view = apply(FleetView(), NodeObserved(node("a", replica("m"))))

    lost = apply(view, NodeLost("a")).node("a")

    assert lost is not None
    assert not lost.healthy
    assert lost.holds("m") is not None


def test_a_forgotten_node_is_gone() -> None:
    """It left the configuration."""
    view = apply(FleetView(), NodeObserved(node("a")))

    assert apply(view, NodeForgotten("a")).nodes == ()


def test_aliases_come_with_the_catalogue() -> None:
    """Resolution is one step, never a chain."""
    view = apply(FleetView(), CatalogueChanged({"m": Profile(id="m")}, {"alias": "m"}))

    assert (view.resolve("alias"), view.resolve("other")) == ("m", "other")


@pytest.mark.parametrize("text", ["loaded", "recovering", "unloading"])
def test_known_statuses_parse(text: str) -> None:
    """The wire's words are the enum's values."""
    assert Status.parse(text).value == text


def test_unknown_statuses_become_unknown() -> None:
    """And UNKNOWN is in no set that routes."""
    assert Status.parse("poisoned") is Status.UNKNOWN
