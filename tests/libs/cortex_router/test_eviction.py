"""Who may leave, what it costs, and which set of them is the cheapest that suffices."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain, combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_router import (
    Cost,
    Fit,
    Lru,
    NoFit,
    Priority,
    Profile,
    Replica,
    Rules,
    Status,
    Strategy,
    displaceable,
    eviction,
    place,
)
from cortex_router.eviction import (
    DEAREST,
    Foreseeing,
    Resident,
    cheapest,
    may_share,
    price_of,
    recency,
)
from cortex_router.nodes import Glance
from tests.libs.cortex_router import strategies as fleet
from tests.libs.cortex_router.fleets import device, node, replica

NOW = 100.0
ANY = Profile(id="any")


def resident(name: str, price: float, gives: Mapping[int, int], tier: int = 0) -> Resident:
    """A replica that may leave."""
    return Resident(replica(name), tier, price, gives)


def names(residents: tuple[Resident, ...]) -> list[str]:
    """Their models."""
    return [one.replica.model for one in residents]


residents = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 0.1, 0.2, 0.3, 1 / 3, 0.7]),
        st.integers(0, 5),
        st.integers(0, 5),
        st.integers(0, 2),
    ),
    max_size=8,
).map(
    lambda found: [
        resident(f"m{at}", price, {0: a, 1: b}, tier)
        for at, (price, a, b, tier) in enumerate(found)
    ]
)


@given(residents, st.integers(0, 2), st.tuples(st.integers(-2, 14), st.integers(-2, 14)))
def test_no_other_set_that_suffices_is_better(
    everyone: list[Resident], forced: int, short: tuple[int, int]
) -> None:
    """A lower highest tier, then a lower price, then fewer: by trying every set."""
    must, may = everyone[:forced], everyone[forced:]

    def enough(some: tuple[Resident, ...]) -> bool:
        return all(sum(one.gives_mb[at] for one in some) >= short[at] for at in range(len(short)))

    found = cheapest(dict(enumerate(short)), must, may)
    able = [
        (*must, *rest)
        for rest in chain.from_iterable(combinations(may, n) for n in range(len(may) + 1))
        if enough((*must, *rest))
    ]

    if found is None:
        assert not able
        return
    assert enough(found.leaving)
    assert set(names(found.leaving)) >= set(names(tuple(must)))
    assert found.tier == min(max((one.tier for one in some), default=0) for some in able)
    rivals = [some for some in able if all(one.tier <= found.tier for one in some)]
    least = min(sum(one.price for one in some) for some in rivals)
    assert found.price == pytest.approx(least)
    assert found.price == pytest.approx(sum(one.price for one in found.leaving))
    fewest = min(len(some) for some in rivals if sum(o.price for o in some) <= least + 1e-9)
    assert len(found.leaving) == fewest


@given(residents, st.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(
    everyone: list[Resident], random: Random
) -> None:
    """Equals included: the same models leave."""
    shuffled = random.sample(everyone, len(everyone))

    assert cheapest({0: 6, 1: 3}, (), shuffled) == cheapest({0: 6, 1: 3}, (), everyone)


def test_of_two_equally_cheap_sets_the_smaller_one_goes() -> None:
    """Models never used cost nothing, and still not all of them leave."""
    free = [resident(name, 0.0, {0: mb}) for name, mb in (("a", 1), ("b", 1), ("c", 3), ("d", 2))]

    found = cheapest({0: 3}, (), free)

    assert found is not None
    assert names(found.leaving) == ["c"]


def test_one_dear_model_goes_if_the_cheap_ones_cost_more_together() -> None:
    """Not one at a time, the cheapest first."""
    cheap = [resident(name, 0.4, {0: 1}) for name in "abc"]

    one = cheapest({0: 3}, (), [*cheap, resident("d", 1.0, {0: 3})])
    three = cheapest({0: 3}, (), [*cheap, resident("d", 1.3, {0: 3})])

    assert one is not None
    assert three is not None
    assert (names(one.leaving), one.price) == (["d"], 1.0)
    assert names(three.leaving) == ["a", "b", "c"]


def test_who_leaves_anyway_counts() -> None:
    """What those who must go give back need not be taken from others."""
    must = resident("must", 0.5, {0: 2}, tier=3)

    alone = cheapest({0: 2}, [must], [resident("a", 0.1, {0: 5})])
    helped = cheapest(
        {0: 3}, [must], [resident("a", 0.1, {0: 5}, tier=4), resident("b", 9.0, {0: 1}, 2)]
    )

    assert alone is not None
    assert helped is not None
    assert (names(alone.leaving), alone.tier, alone.price) == (["must"], 3, 0.5)
    assert (names(helped.leaving), helped.tier) == (["must", "b"], 3)


def test_a_search_that_would_take_too_long_stops_with_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Enough, and nobody in it who is not needed, from the first step on."""
    random = Random(7)
    many = [
        resident(
            f"m{at:02}", random.random(), {0: random.randrange(1, 99), 1: random.randrange(99)}
        )
        for at in range(60)
    ]
    for limit in (1, 2, 100, eviction.SEARCH_LIMIT):
        monkeypatch.setattr(eviction, "SEARCH_LIMIT", limit)
        found = cheapest({0: 900, 1: 700}, (), many)

        assert found is not None
        for spared in (None, *found.leaving):
            left = [one for one in found.leaving if one is not spared]
            enough = [sum(one.gives_mb[at] for one in left) for at in (0, 1)]
            assert (enough[0] >= 900 and enough[1] >= 700) == (spared is None)


def test_more_steps_find_a_cheaper_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer takes the cheapest first; the search mends it."""
    some = [resident(name, 0.4, {0: 1}) for name in "abc"] + [resident("d", 1.0, {0: 3})]
    monkeypatch.setattr(eviction, "SEARCH_LIMIT", 1)

    found = cheapest({0: 3}, (), some)

    assert found is not None
    assert names(found.leaving) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("one", "theirs", "may"),
    [
        (replica("m"), ANY, True),
        (replica("m", Status.LOADING), ANY, False),
        (replica("m", Status.FAILED), ANY, False),
        (replica("m", in_flight=1), ANY, False),
        (replace(replica("m"), queued=1), ANY, False),
        (replica("m"), replace(ANY, pinned_on=("n",), priority=0), False),
        (replica("m"), replace(ANY, pinned_on=("other",), priority=0), True),
        (replica("m"), replace(ANY, priority=100), True),
        (replica("m"), replace(ANY, priority=101), False),
        (replica("m", loaded_at=NOW - 10.0), ANY, True),
        (replica("m", loaded_at=NOW - 9.0), ANY, False),
    ],
)
def test_one_predicate_says_who_may_leave(one: Replica, theirs: Profile, may: bool) -> None:
    """Loaded, unused, long enough there, not at home, not of a higher class."""
    found = displaceable(one, theirs, Profile(id="new"), node="n", now=NOW, min_residency_secs=10.0)

    assert found is may


def test_who_has_just_come_may_leave_if_nobody_asked_for_more() -> None:
    """No minimum unless the operator sets one."""
    fresh = replica("m", loaded_at=NOW)

    assert displaceable(fresh, ANY, Profile(id="new"), node="n", now=NOW)


def test_either_of_two_can_refuse_to_share() -> None:
    """The rule may be on the one or on the other."""
    alone = Profile(id="a", apart_from=("b",))

    assert not may_share(alone, Profile(id="b"))
    assert not may_share(Profile(id="b"), alone)
    assert may_share(alone, Profile(id="c"))


def test_recency_is_the_chance_of_a_next_use() -> None:
    """1 / (1 + idle seconds); never used is the least, and the future counts as now."""
    assert recency(NOW - 3.0, NOW) == 0.25
    assert recency(NOW + 3.0, NOW) == 1.0
    assert recency(replica("m", last_used=None).idle_since, NOW) == 0.0


def test_what_was_just_loaded_has_just_been_used() -> None:
    """Somebody asked for it, and its first request is on the way."""
    assert replica("m", last_used=None, loaded_at=7.0).idle_since == 7.0
    assert replica("m", last_used=5.0, loaded_at=7.0).idle_since == 7.0
    assert replica("m", last_used=9.0, loaded_at=7.0).idle_since == 9.0
    assert replica("m", last_used=9.0).idle_since == 9.0


def test_a_load_is_as_long_as_it_was_or_as_its_size_says() -> None:
    """Two seconds, and one for every 1,000 MiB, until it is known."""
    seen = replace(replica("m", used=4000), load_secs=3.0)

    assert seen.load_secs_at(None) == 3.0
    assert replica("m", used=4000).load_secs_at(None) == 6.0
    assert replica("m", used=None).load_secs_at(500) == 2.5
    assert replica("m", used=None).load_secs_at(None) == 2.0


def test_the_strategies_prices() -> None:
    """What lru, priority and cost say of one replica idle for 3 s that loads in 6 s."""
    one, theirs = replica("m", used=4000, last_used=NOW - 3.0), replace(ANY, priority=7)

    def said(strategy: Strategy) -> tuple[int, float]:
        return strategy.tier(one, theirs), strategy.price(one, theirs, NOW, None)

    assert said(Lru()) == (0, 0.25)
    assert said(Priority()) == (7, 0.25)
    assert said(Cost()) == (0, 1.5)
    assert Cost().price(one, theirs, NOW, 2.0) == 13.5
    assert Cost().price(one, theirs, NOW, 0.0) == 1.5


@given(
    one=fleet.replicas,
    theirs=fleet.profiles(),
    strategy=st.sampled_from([Lru(), Priority(), Cost()]),
    wanted=st.none() | st.floats(0, 5),
    more_idle=st.floats(0, 9),
    faster=st.floats(0, 1),
    lower=st.integers(0, 9),
)
def test_a_strategy_that_foresees_never_says_too_much(
    one: Replica,
    theirs: Profile,
    strategy: Strategy,
    wanted: float | None,
    more_idle: float,
    faster: float,
    lower: int,
) -> None:
    """No replica is cheaper than the floor of a glance that holds of it and of others."""
    assert isinstance(strategy, Foreseeing)
    glance = Glance(one.idle_since - more_idle, one.load_secs_at(None) * faster)

    said = strategy.tier(one, theirs), strategy.price(one, theirs, NOW, wanted)
    assert strategy.floor(glance, theirs.residency_class - lower, NOW) <= said


@dataclass(frozen=True)
class Says:
    """A strategy that says the same of everybody, and how often each was wanted is its price."""

    answer: float | None

    def tier(self, replica: Replica, profile: Profile) -> int:
        """One for all."""
        return 0

    def price(
        self, replica: Replica, profile: Profile, now: float, wanted_per_sec: float | None
    ) -> float:
        """Return the answer, else how often it was wanted."""
        return self.answer if self.answer is not None else wanted_per_sec or 0.0


@pytest.mark.parametrize(
    ("answer", "price"),
    [
        (0.5, 0.5),
        (-1.0, 0.0),
        (float("inf"), DEAREST),
        (float("nan"), DEAREST),
        (float("-inf"), 0.0),
        (2 * DEAREST, DEAREST),
    ],
)
def test_an_answer_that_is_no_price_is_tamed(answer: float, price: float) -> None:
    """A user's strategy must not be able to stop a decision."""
    assert price_of(Says(answer), replica("m"), ANY, NOW, None) == price


def test_a_price_may_depend_on_how_often_a_model_is_wanted() -> None:
    """The demand of the very model is what is handed on."""
    wanted = {"m": 3.0, "other": 5.0}

    assert price_of(Says(None), replica("m"), ANY, NOW, wanted.get) == 3.0
    assert price_of(Says(None), replica("nobody"), ANY, NOW, wanted.get) == 0.0


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
