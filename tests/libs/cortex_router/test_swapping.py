"""Whose turn it is: batches, bounded waits, and nobody who leaves that must not."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cortex_router import (
    Close,
    Demand,
    Device,
    Hold,
    Node,
    Profile,
    Reopen,
    Replica,
    Rules,
    Start,
    Status,
    Swapping,
    SwapStep,
    next_swaps,
    wait_bound_secs,
)

NOW = 100.0
SWAPPING = Swapping(amortise=1.0, linger_secs=5.0)


def resident(
    model: str,
    *,
    used: int = 8,
    age: float = 100.0,
    idle: float = 100.0,
    in_flight: int = 0,
    devices: tuple[int, ...] = (0,),
    status: Status = Status.LOADED,
) -> Replica:
    """A model whose load took 10 s; by default it has served its time, and is idle."""
    return Replica(
        model=model,
        status=status,
        devices=devices,
        used_mb=used,
        in_flight=in_flight,
        loaded_at=NOW - age,
        last_used=NOW - idle,
        load_secs=10.0,
    )


def machine(*held: Replica, total: int = 16, devices: int = 1) -> Node:
    """A node whose devices have what the residents leave them."""
    free = [
        total - sum(r.share_mb(None) or 0 for r in held if i in r.devices) for i in range(devices)
    ]
    return Node(
        name="n",
        healthy=True,
        devices=tuple(
            Device(index=i, total_mb=total, free_mb=max(0, mb), reserved_mb=max(0, -mb))
            for i, mb in enumerate(free)
        ),
        replicas=held,
    )


def demand(
    model: str, *, size: int = 8, since: float = 90.0, count: int = 1, devices: int = 1
) -> Demand:
    """Somebody has waited for ten seconds."""
    profile = Profile(id=model, size_mb=size, min_devices=devices)
    return Demand(profile=profile, count=count, since=since)


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


statuses = st.sampled_from([Status.LOADED] * 4 + [Status.LOADING, Status.UNLOADING])
held = st.builds(
    resident,
    st.sampled_from("abcdef"),
    used=st.integers(0, 8),
    age=st.integers(0, 15).map(float),
    idle=st.integers(0, 15).map(float),
    in_flight=st.sampled_from([0, 0, 1]),
    devices=st.sampled_from([(0,), (1,), (0, 1)]),
    status=statuses,
)


@st.composite
def nodes(draw: st.DrawFn) -> Node:
    """Two devices of eight, and residents that fit on them."""
    fitting: dict[str, Replica] = {}
    for one in draw(st.lists(held, max_size=6)):
        more = {**fitting, one.model: one}
        if all(
            sum(r.share_mb(None) or 0 for r in more.values() if i in r.devices) <= 8 for i in (0, 1)
        ):
            fitting = more
    return machine(*fitting.values(), total=8, devices=2)


demand_lists = st.lists(
    st.builds(
        demand,
        st.sampled_from("uvwxyz"),
        size=st.integers(1, 12),
        since=st.integers(80, 90).map(float),
        devices=st.integers(1, 2),
    ),
    max_size=4,
    unique_by=lambda one: one.profile.id,
)
catalogues = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(
        Profile,
        id=st.just("x"),
        priority=st.sampled_from([None, None, 50, 200]),
        pinned_on=st.sampled_from([(), (), ("n",)]),
    ),
)


@given(nodes(), demand_lists, catalogues)
def test_whoever_leaves_is_idle_and_may_leave_and_memory_suffices(
    node: Node, demands: list[Demand], profiles: dict[str, Profile]
) -> None:
    """Everything that is started fits together, now and when all that leave have left."""
    wanted = {one.profile.id: one.profile for one in demands}
    told = next_swaps(node, demands, profiles, SWAPPING, NOW)
    gone: set[str] = set()
    started: list[tuple[int, tuple[int, ...]]] = []
    for one in told:
        if isinstance(one, Start):
            comer = wanted[one.model]
            started.append((comer.share_mb or 0, one.devices))
            for victim in one.evict:
                leaving = node.holds(victim.model)
                theirs = profiles.get(victim.model) or Profile(id=victim.model)
                assert leaving is not None
                assert leaving.status is Status.LOADED
                assert not leaving.busy
                assert not theirs.pinned_on
                assert theirs.residency_class <= comer.residency_class
                assert victim.model not in gone
                gone.add(victim.model)

    for index in (0, 1):
        stay = [r for r in node.replicas if r.model not in gone and index in r.devices]
        kept = sum(r.share_mb(None) or 0 for r in stay)
        assert kept + sum(mb for mb, devices in started if index in devices) <= 8


@given(nodes(), demand_lists, catalogues, st.integers(0, 1000))
def test_the_order_of_what_is_given_does_not_matter(
    node: Node, demands: list[Demand], profiles: dict[str, Profile], seed: int
) -> None:
    """Neither of the demands, nor of the replicas, nor of the catalogue."""
    shuffled = random.Random(seed)
    others = shuffled.sample(demands, len(demands))
    moved = replace(node, replicas=tuple(shuffled.sample(node.replicas, len(node.replicas))))
    listed = dict(shuffled.sample(sorted(profiles.items()), len(profiles)))

    assert next_swaps(moved, others, listed, SWAPPING, NOW) == next_swaps(
        node, demands, profiles, SWAPPING, NOW
    )


@given(nodes(), demand_lists, catalogues)
def test_every_demand_hears_one_thing_and_every_wait_has_an_end(
    node: Node, demands: list[Demand], profiles: dict[str, Profile]
) -> None:
    """A start or a hold for each; a time to look again lies ahead; nobody is closed twice."""
    told = next_swaps(node, demands, profiles, SWAPPING, NOW)
    heard = [one.model for one in told if isinstance(one, Start | Hold)]
    closing = [one.model for one in told if isinstance(one, Close)]

    assert sorted(heard) == sorted(one.profile.id for one in demands)
    assert all(one.until is None or one.until > NOW for one in told if isinstance(one, Hold))
    assert len(closing) == len(set(closing))


@given(nodes(), demand_lists, catalogues)
def test_nobody_is_displaced_before_the_minimum(
    node: Node, demands: list[Demand], profiles: dict[str, Profile]
) -> None:
    """`min_residency_secs` holds for the idle and the busy alike."""
    swapping = replace(SWAPPING, rules=Rules(min_residency_secs=12.0))
    for one in next_swaps(node, demands, profiles, swapping, NOW):
        gone = [v.model for v in one.evict] if isinstance(one, Start) else []
        gone += [one.model] if isinstance(one, Close) else []
        for model in gone:
            leaving = node.holds(model)
            assert leaving is not None
            assert leaving.loaded_at is not None
            assert NOW - leaving.loaded_at >= 12.0
