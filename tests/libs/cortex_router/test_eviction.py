"""Victim sets: enough, minimal, and never somebody who may not leave."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_router import Fit, Node, NoFit, Priority, Profile, Replica, Rules, Status, place
from tests.libs.cortex_router.fleets import device, node, replica

NOW = 100.0

replicas = st.builds(
    Replica,
    model=st.sampled_from("abcdef"),
    status=st.sampled_from([Status.LOADED, Status.LOADED, Status.LOADING]),
    devices=st.sampled_from([(0,), (1,), (0, 1)]),
    used_mb=st.one_of(st.none(), st.integers(1, 8)),
    in_flight=st.integers(0, 1),
    last_used=st.one_of(st.none(), st.floats(0, 100)),
)
nodes = st.builds(
    lambda held, free: Node(
        name="n",
        healthy=True,
        devices=(device(0, total=8, free=free[0]), device(1, total=8, free=free[1])),
        replicas=tuple({one.model: one for one in held}.values()),
    ),
    st.lists(replicas, max_size=6),
    st.tuples(st.integers(0, 8), st.integers(0, 8)),
)
incoming = st.builds(
    Profile,
    id=st.just("new"),
    size_mb=st.integers(1, 12),
    min_devices=st.integers(1, 2),
    priority=st.integers(0, 2),
)
catalogues = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(
        Profile,
        id=st.just("x"),
        size_mb=st.one_of(st.none(), st.integers(1, 8)),
        priority=st.integers(0, 2),
        pinned_on=st.sampled_from([(), ("n",)]),
    ),
)


def freed(machine: Node, index: int, names: set[str], profiles: dict[str, Profile]) -> int:
    """What these models hold on a device, reckoned by hand."""
    total = 0
    for one in machine.replicas:
        if one.model in names and index in one.devices:
            listed = profiles.get(one.model)
            whole = one.used_mb if one.used_mb is not None else listed.size_mb if listed else None
            total += 0 if whole is None else -(-whole // len(one.devices))
    return total


@given(nodes, incoming, catalogues)
def test_victims_are_enough_minimal_and_allowed_to_leave(
    machine: Node, profile: Profile, profiles: dict[str, Profile]
) -> None:
    """A fit makes its share free on every device, needs every victim, and spares whom it must."""
    placement = place(machine, profile, profiles, Rules(), NOW)
    if isinstance(placement, NoFit):
        return

    names = {victim.model for victim in placement.evict}
    share = -(-profile.size_mb // profile.min_devices) if profile.size_mb else 0
    free = {d.index: d.free_mb or 0 for d in machine.devices}

    def fits_without(spared: set[str]) -> bool:
        return all(
            free[i] + freed(machine, i, names - spared, profiles) >= share
            for i in placement.devices
        )

    assert len(placement.devices) == profile.min_devices
    assert fits_without(set())
    assert not any(fits_without({name}) for name in names)
    for name in names:
        gone = machine.holds(name)
        theirs = profiles.get(name) or Profile(id=name)
        assert gone is not None
        assert gone.status is Status.LOADED
        assert gone.in_flight == 0
        assert "n" not in theirs.pinned_on
        assert theirs.residency_class <= profile.residency_class


@given(nodes, incoming, catalogues)
def test_nobody_leaves_when_there_is_room(
    machine: Node, profile: Profile, profiles: dict[str, Profile]
) -> None:
    """An eviction means that no set of devices had room as they were."""
    placement = place(machine, profile, profiles, Rules(), NOW)
    share = -(-profile.size_mb // profile.min_devices) if profile.size_mb else 0
    roomy = [d for d in machine.devices if (d.free_mb or 0) >= share]

    if len(roomy) >= profile.min_devices and share <= 8:
        assert isinstance(placement, Fit)
        assert placement.evict == ()


def test_the_oldest_leaves_first() -> None:
    """LRU, with a model that was never used as the oldest."""
    full = node(
        "n",
        replica("recent", used=8, last_used=90.0),
        replica("never", used=8, last_used=None),
        replica("old", used=8, last_used=10.0),
        devices=(device(free=0),),
    )

    placement = place(full, Profile(id="new", size_mb=16), {}, Rules(), NOW)

    assert isinstance(placement, Fit)
    assert {victim.model for victim in placement.evict} == {"never", "old"}


def test_priority_ranks_the_lower_class_first() -> None:
    """A recent model of a low class leaves before an old one of a high class."""
    full = node(
        "n",
        replica("low", used=12, last_used=90.0),
        replica("high", used=12, last_used=1.0),
        devices=(device(free=0),),
    )
    profiles = {"low": Profile(id="low", priority=1), "high": Profile(id="high", priority=2)}
    newcomer = Profile(id="new", size_mb=10, priority=5)

    placement = place(full, newcomer, profiles, Rules(strategy=Priority()), NOW)

    assert isinstance(placement, Fit)
    assert [victim.model for victim in placement.evict] == ["low"]


def test_a_model_that_just_arrived_is_left_alone() -> None:
    """`min_residency_secs` keeps two models from chasing each other."""
    full = node("n", replica("fresh", used=24, loaded_at=99.0), devices=(device(free=0),))
    newcomer = Profile(id="new", size_mb=10)

    calm = place(full, newcomer, {}, Rules(min_residency_secs=5), NOW)
    later = place(full, newcomer, {}, Rules(min_residency_secs=5), NOW + 10)

    assert isinstance(calm, NoFit)
    assert isinstance(later, Fit)
