"""What holds for every step of swap scheduling, whatever the node and the demands."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cortex_router import (
    Close,
    Demand,
    Hold,
    Node,
    Profile,
    Replica,
    Rules,
    Start,
    Status,
    next_swaps,
)
from tests.libs.cortex_router.turns import NOW, SWAPPING, demand, machine, resident

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
