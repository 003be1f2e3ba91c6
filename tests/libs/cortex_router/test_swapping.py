"""Whose turn it is: batches, bounded waits, and nobody who leaves that must not."""

from cortex_router import (
    Close,
    Demand,
    Hold,
    Node,
    Profile,
    Reopen,
    Start,
    Status,
    SwapStep,
    next_swaps,
    wait_bound_secs,
)
from tests.libs.cortex_router.turns import NOW, SWAPPING, demand, machine, resident


def steps(
    node: Node,
    *demands: Demand,
    closed: dict[str, str] | None = None,
    profiles: dict[str, Profile] | None = None,
    now: float = NOW,
) -> tuple[SwapStep, ...]:
    """What is to be done, for residents of the default class."""
    return next_swaps(node, demands, profiles or {}, SWAPPING, now, closed=closed or {})


def test_what_fits_beside_starts_at_once() -> None:
    """Nobody has to leave, so nobody is asked to."""
    assert steps(machine(resident("a", in_flight=1)), demand("b")) == (Start("b", (0,)),)


def test_an_idle_model_that_has_served_its_time_leaves_for_another() -> None:
    """The start names whom it displaces."""
    (start,) = steps(machine(resident("a", used=16)), demand("b"))

    assert isinstance(start, Start)
    assert [victim.model for victim in start.evict] == ["a"]


def test_a_busy_model_serves_its_time_before_it_is_asked_to_leave() -> None:
    """Its load took ten seconds, so it stays for ten; we are told when to look again."""
    fresh = machine(resident("a", used=16, age=4.0, in_flight=1))

    assert steps(fresh, demand("b")) == (Hold("b", NOW + 6.0, "serving_its_time"),)


def test_a_model_that_nobody_uses_need_not_serve_its_time() -> None:
    """It leaves after it was idle for `linger_secs`, since somebody else waits."""
    lingers = machine(resident("a", used=16, age=4.0, idle=3.0))
    lingered = machine(resident("a", used=16, age=7.0, idle=5.0))

    assert steps(lingers, demand("b")) == (Hold("b", NOW + 2.0, "serving_its_time"),)
    assert isinstance(steps(lingered, demand("b"))[0], Start)


def test_a_busy_model_that_has_served_its_time_is_closed_once() -> None:
    """It drains; the next look finds it closed and does not say so again."""
    busy = machine(resident("a", used=16, in_flight=1))

    assert steps(busy, demand("b")) == (Close("a", "b"), Hold("b", None, "draining"))
    assert steps(busy, demand("b"), closed={"a": "b"}) == (Hold("b", None, "draining"),)


def test_an_idle_model_that_will_soon_have_lingered_spares_a_busy_one() -> None:
    """Waiting three seconds for the one that nobody uses beats sending away one in use."""
    node = machine(resident("busy", in_flight=1), resident("idle", age=7.0, idle=2.0))

    assert steps(node, demand("c")) == (Hold("c", NOW + 3.0, "serving_its_time"),)


def test_a_model_is_reopened_when_nobody_wants_its_place_any_more() -> None:
    """Whoever waited has gone, or fits elsewhere by now."""
    busy = resident("a", in_flight=1)

    assert steps(machine(busy), closed={"a": "b"}) == (Reopen("a"),)
    assert steps(machine(busy), demand("b"), closed={"a": "b"}) == (
        Reopen("a"),
        Start("b", (0,)),
    )


def test_a_closed_model_that_may_no_longer_leave_serves_again() -> None:
    """It was pinned meanwhile, so those who wait for it are let in and the other one waits."""
    told = steps(
        machine(resident("a", used=16, in_flight=1)),
        demand("b"),
        demand("a", size=16, since=95.0),
        closed={"a": "b"},
        profiles={"a": Profile(id="a", pinned_on=("n",), priority=100)},
    )

    assert told == (Reopen("a"), Hold("b", None, "no_room"))


def test_a_closed_models_own_demand_does_not_hold_up_the_one_it_makes_way_for() -> None:
    """However old it claims to be: else the two would wait for each other."""
    told = steps(
        machine(resident("a", used=16)),
        demand("a", size=16, since=10.0),
        demand("b"),
        closed={"a": "b"},
    )

    assert isinstance(told[0], Start)
    assert told[0].model == "b"


def test_younger_demands_get_only_what_older_ones_leave_over() -> None:
    """The small one would fit at once, but into memory that the large one is waiting to get."""
    half_free = machine(resident("a", in_flight=1, age=4.0))
    large = demand("large", size=16, since=80.0)

    assert steps(half_free, demand("small", size=4), large) == (
        Hold("large", NOW + 6.0, "serving_its_time"),
        Hold("small", None, "no_room"),
    )


def test_what_the_older_one_leaves_over_is_used() -> None:
    """Small models go beside while a larger one waits for its place."""
    told = steps(
        machine(resident("a", in_flight=1, age=4.0), total=20),
        demand("large", size=16, since=80.0),
        demand("small", size=4),
    )

    assert told == (Hold("large", NOW + 6.0, "serving_its_time"), Start("small", (0,)))


def test_other_devices_go_on() -> None:
    """A wait for one device holds up nobody on another."""
    told = steps(
        machine(
            resident("a", used=16, in_flight=1, age=4.0), resident("b", devices=(1,)), devices=2
        ),
        demand("large", size=16, since=80.0),
        demand("other", size=8),
        profiles={"b": Profile(id="b", pinned_on=("n",))},
    )

    assert told == (Hold("large", NOW + 6.0, "serving_its_time"), Start("other", (1,)))


def test_who_could_not_have_its_turn_anyway_holds_nobody_up() -> None:
    """A pinned model is in its way, and the younger one fits."""
    told = steps(
        machine(resident("a", in_flight=1)),
        demand("large", size=16, since=80.0),
        demand("b"),
        profiles={"a": Profile(id="a", pinned_on=("n",))},
    )

    assert told == (Hold("large", None, "no_room"), Start("b", (0,)))


def test_memory_that_is_being_given_back_is_waited_for() -> None:
    """Nobody is displaced for what will be free in a moment."""
    told = steps(machine(resident("a"), resident("b", status=Status.UNLOADING)), demand("c"))

    assert told == (Hold("c", None, "unloading"),)


def test_memory_that_is_being_given_back_is_not_promised_twice() -> None:
    """Of two that fit once it is back, the younger one does not start into the older one's room."""
    told = steps(
        machine(resident("a", used=6, status=Status.UNLOADING), total=12),
        demand("first", size=4, since=80.0),
        demand("second", size=4),
    )

    assert told == (Start("first", (0,)), Hold("second", None, "unloading"))


def test_a_place_that_a_loading_model_will_leave_is_kept_for_the_oldest() -> None:
    """Else small ones could take half of it each time, and the large one would never fit."""
    told = steps(
        machine(resident("a", status=Status.LOADING), resident("b"), devices=2),
        demand("large", size=32, since=80.0, devices=2),
        demand("small", size=4),
    )

    assert told == (Hold("large", None, "loading"), Hold("small", None, "no_room"))


def test_a_model_that_leaves_has_its_next_place_kept() -> None:
    """It is asked for again while it leaves: it comes back before younger demands."""
    told = steps(
        machine(resident("a", used=16, status=Status.UNLOADING)),
        demand("a", size=16),
        demand("b", since=95.0),
    )

    assert told == (Hold("a", None, "leaving"), Hold("b", None, "no_room"))


def test_a_model_that_is_on_its_way_is_not_loaded_again() -> None:
    """One copy a node."""
    told = steps(machine(resident("a", status=Status.LOADING), total=64), demand("a"))

    assert told == (Hold("a", None, "loading"),)


def test_a_clock_that_was_set_back_does_not_prolong_a_stay() -> None:
    """A model that came later than now has served its time; it leaves when it is idle."""
    told = steps(machine(resident("a", used=16, age=-1000.0, idle=0.0)), demand("b"))

    assert isinstance(told[0], Start)
    assert [victim.model for victim in told[0].evict] == ["a"]


def test_models_that_may_not_share_a_device_are_kept_apart() -> None:
    """Also from one that has only just been promised its place there."""
    lonely = Demand(profile=Profile(id="b", size_mb=4, apart_from=("a",)), count=1, since=95.0)
    told = steps(machine(), demand("a", size=4), lonely)

    assert told == (Start("a", (0,)), Hold("b", None, "no_room"))


def test_the_bound_is_one_turn_for_each_older_demand_and_one_of_its_own() -> None:
    """The figures of the docstring."""
    bound = wait_bound_secs(
        older=2, quantum_secs=10.0, drain_secs=5.0, unload_secs=1.0, load_secs=10.0
    )

    assert bound == 3 * (10.0 + 5.0 + 2 * (1.0 + 10.0))
