"""Every rule of `decide`, each with a fleet small enough to see."""

import pytest

from cortex_router import (
    Await,
    FleetView,
    Load,
    Policy,
    Profile,
    Refuse,
    RouteRequest,
    Serve,
    Status,
    decide,
)
from tests.libs.cortex_router.fleets import device, fleet, node, replica

SMALL = Profile(id="small", size_mb=10)
BIG = Profile(id="big", size_mb=20)


def ask(view: FleetView, model: str, *, avoid: str | None = None) -> object:
    """Decide with the default policy."""
    avoided = frozenset({avoid} if avoid else ())
    return decide(view, RouteRequest(model=model, avoid=avoided), Policy(), 100.0)


def test_the_least_pressed_replica_serves() -> None:
    """Pressure counts against each replica's own ceiling."""
    view = fleet(
        node("a", replica("small", in_flight=2, ceiling=2)),
        node("b", replica("small", in_flight=3, ceiling=8)),
    )

    decision = ask(view, "small")

    assert isinstance(decision, Serve)
    assert decision.node == "b"


def test_equal_replicas_tie_by_name() -> None:
    """The answer never flaps."""
    decision = ask(fleet(node("b", replica("small")), node("a", replica("small"))), "small")

    assert isinstance(decision, Serve)
    assert decision.node == "a"


def test_an_alias_is_served_by_its_model() -> None:
    """The decision names the concrete model."""
    decision = ask(fleet(node("a", replica("small")), aliases={"gpt": "small"}), "gpt")

    assert isinstance(decision, Serve)
    assert decision.model == "small"


@pytest.mark.parametrize(
    "status", [Status.QUEUED, Status.LOADING, Status.RECOVERING, Status.UNLOADING]
)
def test_an_arriving_replica_is_awaited_and_never_doubled(status: Status) -> None:
    """Another node has room, and still no second copy is started."""
    view = fleet(node("a", replica("small", status)), node("b"), profiles=(SMALL,))

    decision = ask(view, "small")

    assert isinstance(decision, Await)
    assert (decision.node, decision.reason) == ("a", status.value)


def test_an_unknown_status_is_not_routable() -> None:
    """What we do not understand does not serve."""
    decision = ask(fleet(node("a", replica("small", Status.parse("poisoned")))), "small")

    assert not isinstance(decision, Serve)


def test_an_unservable_replica_is_skipped_for_one_that_can() -> None:
    """Resident and healthy is not the same as able."""
    view = fleet(node("a", replica("small", servable=False)), node("b", replica("small")))

    decision = ask(view, "small")

    assert isinstance(decision, Serve)
    assert decision.node == "b"


def test_a_failed_replica_is_avoided_before_anything_else() -> None:
    """The node that just failed this request is not asked again."""
    view = fleet(node("a", replica("small")), node("b", replica("small", in_flight=3)))

    decision = ask(view, "small", avoid="a")

    assert isinstance(decision, Serve)
    assert decision.node == "b"


def test_room_somewhere_beats_an_eviction_elsewhere() -> None:
    """Never disturb a resident while another node has room."""
    full = node("a", replica("other"), devices=(device(free=14),))
    view = fleet(full, node("b"), profiles=(BIG, Profile(id="other", size_mb=10)))

    decision = ask(view, "big")

    assert isinstance(decision, Load)
    assert (decision.node, decision.evict) == ("b", ())


def test_a_pinned_home_beats_more_room() -> None:
    """Pinned first."""
    pinned = Profile(id="small", size_mb=10, pinned_on=("b",))
    view = fleet(node("a"), node("b", devices=(device(free=11),)), profiles=(pinned,))

    decision = ask(view, "small")

    assert isinstance(decision, Load)
    assert decision.node == "b"


def test_the_least_recently_used_model_leaves_and_can_come_back() -> None:
    """Equal classes swap both ways."""
    one, two = Profile(id="one", size_mb=20), Profile(id="two", size_mb=20)
    there = fleet(
        node("a", replica("one", used=20), devices=(device(free=4),)), profiles=(one, two)
    )
    back = fleet(node("a", replica("two", used=20), devices=(device(free=4),)), profiles=(one, two))

    out, again = ask(there, "two"), ask(back, "one")

    assert isinstance(out, Load)
    assert isinstance(again, Load)
    assert [victim.model for victim in out.evict] == ["one"]
    assert [victim.model for victim in again.evict] == ["two"]


def test_a_model_in_use_is_never_evicted() -> None:
    """The node is told who comes next, and that its neighbour has to end first."""
    busy = node("a", replica("one", used=20, in_flight=1), devices=(device(free=4),))

    decision = ask(fleet(busy, profiles=(BIG, Profile(id="one", size_mb=20))), "big")

    assert isinstance(decision, Load)
    assert decision.evict == ()
    assert [victim.model for victim in decision.once_idle] == ["one"]


def test_a_higher_class_is_never_displaced() -> None:
    """Priority says who may be displaced."""
    held = node("a", replica("one", used=20), devices=(device(free=4),))
    precious = Profile(id="one", size_mb=20, priority=200)

    decision = ask(fleet(held, profiles=(BIG, precious)), "big")

    assert isinstance(decision, Await)


def test_a_model_pinned_there_stays() -> None:
    """Whatever its class, home is home."""
    held = node("a", replica("one", used=20), devices=(device(free=4),))
    home = Profile(id="one", size_mb=20, pinned_on=("a",), priority=0)

    decision = ask(fleet(held, profiles=(BIG, home)), "big")

    assert isinstance(decision, Await)


def test_each_device_needs_its_share() -> None:
    """A sum of free memory is not room: one of the two devices is too full."""
    wide = Profile(id="wide", size_mb=40, min_devices=2)
    lopsided = node("a", devices=(device(0, total=48, free=30), device(1, total=48, free=12)))
    even = node("b", devices=(device(0, free=21), device(1, free=21)))

    decision = ask(fleet(lopsided, even, profiles=(wide,)), "wide")

    assert isinstance(decision, Load)
    assert (decision.node, decision.devices) == ("b", (0, 1))


def test_memory_promised_to_a_load_in_progress_is_not_room() -> None:
    """Reservations count."""
    view = fleet(node("a", devices=(device(free=24),)), profiles=(BIG,))
    promised = fleet(
        node("a", devices=(type(device())(index=0, total_mb=24, free_mb=24, reserved_mb=10),)),
        profiles=(BIG,),
    )

    assert isinstance(ask(view, "big"), Load)
    assert isinstance(ask(promised, "big"), Await)


def test_a_size_nobody_knows_goes_where_most_is_free() -> None:
    """Unknown is not zero, and not a refusal either: the node has the last word."""
    view = fleet(
        node("a", devices=(device(0, free=5), device(1, free=9))),
        profiles=(Profile(id="mystery"),),
    )

    decision = ask(view, "mystery")

    assert isinstance(decision, Load)
    assert decision.devices == (1,)


def test_a_model_nobody_has_is_refused_for_good() -> None:
    """404, and no Retry-After."""
    decision = ask(fleet(node("a")), "nothing")

    assert isinstance(decision, Refuse)
    assert (decision.status, decision.code, decision.retry_after_secs) == (
        404,
        "model_not_found",
        None,
    )


def test_what_can_never_fit_is_refused_at_once_with_the_arithmetic() -> None:
    """The refusal says what is needed and what there is."""
    decision = ask(fleet(node("a"), profiles=(Profile(id="huge", size_mb=99),)), "huge")

    assert isinstance(decision, Refuse)
    assert decision.code == "model_infeasible"
    assert decision.retry_after_secs is None
    assert "99 MiB" in decision.detail
    assert "24 MiB" in decision.detail


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "never seen"])
def test_a_node_that_is_away_makes_a_refusal_temporary(seen: bool) -> None:
    """503 with Retry-After, also while nothing is known of its devices."""
    away = node("a", healthy=False)
    if not seen:
        away = type(away)(name="a", healthy=False)

    decision = ask(fleet(away, profiles=(SMALL,)), "small")

    assert isinstance(decision, Refuse)
    assert decision.status == 503
    assert decision.retry_after_secs is not None


def test_files_on_one_node_are_loaded_there_and_nowhere_else() -> None:
    """A model that is in no catalogue lives where its files are."""
    has_files = node("b", replica("local", Status.UNLOADED, devices=(), used=None))

    decision = ask(fleet(node("a"), has_files), "local")

    assert isinstance(decision, Load)
    assert decision.node == "b"


def test_a_harness_that_a_node_lacks_rules_it_out() -> None:
    """A GGUF model does not go where nothing runs GGUF."""
    other = type(node("a"))(name="a", healthy=True, harnesses=("exllamav2",), devices=(device(),))

    decision = ask(fleet(other, profiles=(Profile(id="m", harness="llamacpp", size_mb=1),)), "m")

    assert isinstance(decision, Refuse)
    assert decision.code == "model_infeasible"


def test_every_node_is_accounted_for() -> None:
    """The explanation names each node and why it was kept or not."""
    view = fleet(node("a", healthy=False), node("b"), profiles=(SMALL,))

    decision = ask(view, "small")

    assert isinstance(decision, Load)
    assert {c.node: (c.kept, c.reason) for c in decision.explanation.considered} == {
        "a": (False, "unhealthy"),
        "b": (True, "fits"),
    }
