"""`place` against a search through everything there is to choose, written down independently."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_router import Fit, Node, NoFit, Profile, Replica, Rules, Status, place
from tests.libs.cortex_router import strategies as fleet
from tests.libs.cortex_router.fleets import device, node
from tests.libs.cortex_router.strategies import NOW

incoming = fleet.profiles(st.just("new"))
machines = fleet.nodes(st.just("n0")).map(
    lambda found: replace(found, replicas=tuple(found.by_model.values()))
)
#: Most machines have no room for most of these: they are about who leaves.
crowded = st.builds(
    lambda held, rooms: node(
        "n0",
        *{one.model: one for one in held}.values(),
        devices=tuple(device(i, total=12, free=mb) for i, mb in enumerate(rooms)),
    ),
    st.lists(
        st.builds(
            Replica,
            model=st.sampled_from("abcdefgh"),
            status=st.just(Status.LOADED),
            devices=st.sampled_from([(0,), (1,), (0, 1)]),
            used_mb=st.integers(1, 6),
            last_used=st.integers(0, 99).map(float),
            load_secs=st.sampled_from([1.0, 5.0]),
        ),
        min_size=3,
        max_size=8,
    ),
    st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
large = st.builds(
    Profile, id=st.just("new"), size_mb=st.integers(4, 20), min_devices=st.integers(1, 2)
)


@dataclass(frozen=True)
class Question:
    """All that an answer depends on."""

    node: Node
    profile: Profile
    profiles: Mapping[str, Profile]
    rules: Rules
    once_idle: bool

    def theirs(self, one: Replica) -> Profile:
        """The profile of a resident."""
        return self.profiles.get(one.model) or Profile(id=one.model)

    def answer(self) -> Fit | NoFit:
        """What `place` says."""
        return place(
            self.node, self.profile, self.profiles, self.rules, NOW, once_idle=self.once_idle
        )

    def may_leave(self, one: Replica) -> bool:
        """Whether a resident may be asked to leave at all."""
        theirs = self.theirs(one)
        if one.status is not Status.LOADED or "n0" in theirs.pinned_on:
            return False
        if theirs.residency_class > self.profile.residency_class:
            return False
        return self.once_idle or self.leaves_now(one)

    def leaves_now(self, one: Replica) -> bool:
        """Whether it can leave this moment."""
        young = one.loaded_at is not None and NOW - one.loaded_at < self.rules.min_residency_secs
        return one.in_flight == 0 and one.queued == 0 and not young

    def sets(self) -> Iterator[tuple[int, ...]]:
        """Every set of devices that the empty node could hold the model on."""
        homes = self.profile.pinned_on or self.profile.only_on
        lacks = self.node.harnesses is not None and self.profile.harness not in (
            None,
            *self.node.harnesses,
        )
        if (homes and "n0" not in homes) or "n0" in self.profile.excluded_from or lacks:
            return
        needs = max(self.share, self.profile.min_device_mb or 0)
        able = [d.index for d in self.node.devices if d.total_mb is None or d.total_mb >= needs]
        yield from combinations(able, self.profile.min_devices)

    @property
    def share(self) -> int:
        """What each device has to have free."""
        size, count = self.profile.size_mb, self.profile.min_devices
        return 0 if size is None else size // count + (size % count > 0)

    def left_mb(self, devices: tuple[int, ...], gone: tuple[str, ...]) -> int | None:
        """The room left on the tightest of these devices; None if it does not work out."""
        names = {self.profile.id, *gone}
        for one in self.node.replicas:
            together = not set(one.devices).isdisjoint(devices)
            here = one.status.value in {"loading", "loaded", "unloading", "recovering"}
            theirs = self.theirs(one)
            enemies = one.model in self.profile.apart_from or self.profile.id in theirs.apart_from
            if together and here and enemies and one.model not in names:
                return None
        rooms = []
        for found in self.node.devices:
            if found.index not in devices:
                continue
            if found.free_mb is None and self.profile.size_mb is not None:
                return None
            room = max(0, (found.free_mb or 0) - found.reserved_mb)
            for one in self.node.replicas:
                if one.model in gone and found.index in one.devices:
                    size = one.used_mb if one.used_mb is not None else self.theirs(one).size_mb
                    room += -(-(size or 0) // len(one.devices))
            rooms.append(room - self.share)
        return min(rooms) if min(rooms) >= 0 else None

    def worth(self, gone: tuple[str, ...]) -> tuple[bool, int, float]:
        """What a sacrifice is worth."""
        strategy = self.rules.strategy
        leaving = [one for one in self.node.replicas if one.model in gone]
        return (
            bool(gone),
            max((strategy.tier(one, self.theirs(one)) for one in leaving), default=0),
            sum(strategy.price(one, self.theirs(one), NOW, None) for one in leaving),
        )

    def plans(self) -> Iterator[tuple[tuple[bool, int, float], int, tuple[int, ...]]]:
        """Every plan there is: its worth, the room it leaves, its devices."""
        movable = [one.model for one in self.node.replicas if self.may_leave(one)]
        for devices in self.sets():
            for gone in _subsets(movable):
                if (left := self.left_mb(devices, gone)) is not None:
                    yield self.worth(gone), left, devices


def _subsets(names: list[str]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(names, n) for n in range(len(names) + 1))


questions = st.builds(
    Question,
    st.one_of(machines, crowded),
    st.one_of(incoming, large),
    fleet.catalogues,
    fleet.rules,
    st.booleans(),
)


@given(questions)
def test_a_plan_is_one_of_the_cheapest_there_are_and_none_is_missed(question: Question) -> None:
    """Fits on every device, at the least price there is; no fit only when there is no plan."""
    answer, plans = question.answer(), list(question.plans())

    if isinstance(answer, NoFit):
        assert not plans
        return
    worth = question.worth(answer.victims)
    left = question.left_mb(answer.devices, answer.victims)
    assert left is not None
    assert left == answer.spare_mb
    least = min(one for one, _, _ in plans)
    assert worth[:2] == least[:2]
    assert worth[2] == pytest.approx(least[2], rel=1e-9, abs=1e-15)
    assert answer.tier == worth[1]
    assert answer.price == pytest.approx(worth[2])


@given(questions)
def test_without_an_eviction_the_most_room_is_left_on_the_lowest_devices(
    question: Question,
) -> None:
    """The order among the sets of devices that fit as they are."""
    answer = question.answer()
    free = [(-left, devices) for worth, left, devices in question.plans() if not worth[0]]

    if free:
        assert isinstance(answer, Fit)
        assert (-answer.spare_mb, answer.devices) == min(free)


@given(questions)
def test_nobody_leaves_without_need_or_leave(question: Question) -> None:
    """Without any one of the victims it would not fit; those who leave now can."""
    answer = question.answer()
    if isinstance(answer, NoFit):
        return

    for spared in answer.victims:
        rest = tuple(name for name in answer.victims if name != spared)
        assert question.left_mb(answer.devices, rest) is None
    by_model = question.node.by_model
    assert all(question.leaves_now(by_model[victim.model]) for victim in answer.evict)
    assert not any(question.leaves_now(by_model[victim.model]) for victim in answer.once_idle)
    assert all(question.may_leave(by_model[model]) for model in answer.victims)
    assert question.once_idle or not answer.once_idle


@given(questions)
def test_who_would_have_to_stay_on_a_device_apart_is_never_joined(question: Question) -> None:
    """Co-residency holds after any plan."""
    answer = question.answer()
    if isinstance(answer, NoFit):
        return

    for one in question.node.replicas:
        if one.status in {Status.LOADING, Status.LOADED, Status.RECOVERING, Status.UNLOADING}:
            apart = one.model in question.profile.apart_from
            stays = one.model not in (question.profile.id, *answer.victims)
            assert not (apart and stays and set(one.devices) & set(answer.devices))


@given(questions)
def test_for_ever_means_that_an_empty_node_would_not_do(question: Question) -> None:
    """`ever` is false exactly when no set of devices would hold the model, were they empty."""
    answer = question.answer()

    if isinstance(answer, NoFit):
        assert answer.ever == any(True for _ in question.sets())
        assert answer.detail


@given(questions, st.randoms(use_true_random=False))
def test_the_order_in_which_a_node_tells_things_does_not_matter(
    question: Question, random: Random
) -> None:
    """Devices, replicas and the catalogue, in any order."""
    machine, catalogue = question.node, question.profiles
    shuffled = replace(
        question,
        node=replace(
            machine,
            devices=tuple(random.sample(machine.devices, len(machine.devices))),
            replicas=tuple(random.sample(machine.replicas, len(machine.replicas))),
        ),
        profiles={one: catalogue[one] for one in random.sample(list(catalogue), len(catalogue))},
    )

    assert shuffled.answer() == question.answer()
