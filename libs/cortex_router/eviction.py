"""Which models must leave a set of devices so that another fits.

One predicate, `displaceable`, says who may leave; the gateway's ranking and the node's own load
path both call it, so they cannot disagree. A model leaves only when it is loaded, has nobody in
flight or queued, has been there for its minimum, is not pinned to that node and is not of a higher
residency class than the one that comes: a class, not an order, so equals can swap both ways.

Who leaves is the cheapest set that suffices. A `Strategy` gives each model a tier and a price: no
higher tier is touched than needed, and within it the sum of prices is the least there is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import add, gt, sub
from typing import Final, Protocol, TypeAlias, runtime_checkable

from cortex_router.lifecycle import Status
from cortex_router.nodes import Glance, Profile, Replica

#: The search for the cheapest set takes so many steps; a dozen candidates never need as many.
SEARCH_LIMIT = 8192
#: Two sums of the same prices may differ in their last bits.
_DEARER = 1.0 + 1e-12
#: No price counts for more, so that sums stay finite whatever a strategy returns.
DEAREST = 1e30

#: How often a model was asked for lately, per second; None when nobody counted.
Wanted: TypeAlias = Callable[[str], float | None]


class Strategy(Protocol):
    """How dear a resident is. Pure: the same arguments give the same answer."""

    def tier(self, replica: Replica, profile: Profile) -> int:
        """Return its tier; a higher one is only touched when the lower ones do not suffice."""

    def price(
        self, replica: Replica, profile: Profile, now: float, wanted_per_sec: float | None
    ) -> float:
        """Return what it costs to lose it: finite, not negative.

        `wanted_per_sec` is how often the model was asked for lately, None when nobody counted.
        """


@runtime_checkable
class Foreseeing(Strategy, Protocol):
    """A strategy that bounds its answers at a glance: placing on a large fleet is faster."""

    def floor(self, glance: Glance, lowest_class: int, now: float) -> tuple[int, float]:
        """Return a tier and a price that no replica of which `glance` holds goes below.

        None is of a residency class below `lowest_class`.
        """


@dataclass(frozen=True, slots=True)
class Lru:
    """Whoever was used longest ago is the cheapest; one never used costs nothing."""

    def tier(self, replica: Replica, profile: Profile) -> int:
        """Return 0: all are alike."""
        del replica, profile
        return 0

    def price(
        self, replica: Replica, profile: Profile, now: float, wanted_per_sec: float | None
    ) -> float:
        """Return the chance of a next use, taken as 1 / (1 + idle seconds)."""
        del profile, wanted_per_sec
        return recency(replica.idle_since, now)

    def floor(self, glance: Glance, lowest_class: int, now: float) -> tuple[int, float]:
        """Return the tier of all and the least chance of a next use."""
        del lowest_class
        return 0, recency(glance.idle_since, now)


@dataclass(frozen=True, slots=True)
class Priority:
    """The lowest residency class leaves first; within it, the least recently used."""

    def tier(self, replica: Replica, profile: Profile) -> int:
        """Return the residency class."""
        del replica
        return profile.residency_class

    def price(
        self, replica: Replica, profile: Profile, now: float, wanted_per_sec: float | None
    ) -> float:
        """Return the chance of a next use."""
        del profile, wanted_per_sec
        return recency(replica.idle_since, now)

    def floor(self, glance: Glance, lowest_class: int, now: float) -> tuple[int, float]:
        """Return the lowest class and the least chance of a next use."""
        return lowest_class, recency(glance.idle_since, now)


@dataclass(frozen=True, slots=True)
class Cost:
    """What it takes to bring back, times how soon it is likely to be asked for again."""

    def tier(self, replica: Replica, profile: Profile) -> int:
        """Return 0: all are alike."""
        del replica, profile
        return 0

    def price(
        self, replica: Replica, profile: Profile, now: float, wanted_per_sec: float | None
    ) -> float:
        """Return expected seconds of loading per second: load time x requests per second.

        Those are what was counted lately, and the chance that who has just asked asks again: a
        count alone knows nothing of a conversation that has just begun.
        """
        often = recency(replica.idle_since, now) + (wanted_per_sec or 0.0)
        return replica.load_secs_at(profile.size_mb) * often

    def floor(self, glance: Glance, lowest_class: int, now: float) -> tuple[int, float]:
        """Return the tier of all, and the shortest load times the least chance of a next use."""
        del lowest_class
        return 0, glance.load_secs * recency(glance.idle_since, now)


STRATEGIES: Final[Mapping[str, Strategy]] = {"lru": Lru(), "priority": Priority(), "cost": Cost()}


def recency(idle_since: float, now: float) -> float:
    """Return 1 / (1 + seconds since the last use); 0 for one that never was."""
    return 1.0 / (1.0 + max(0.0, now - idle_since))


def price_of(
    strategy: Strategy, replica: Replica, profile: Profile, now: float, wanted: Wanted | None
) -> float:
    """Return what the strategy says the replica costs, tamed if it is no price at all."""
    often = None if wanted is None else wanted(replica.model)
    price = strategy.price(replica, profile, now, often)
    return max(0.0, min(DEAREST, price)) if price == price else DEAREST  # noqa: PLR0124  # NaN


@dataclass(frozen=True, slots=True)
class Victim:
    """A model that has to leave, and why it was chosen."""

    model: str
    reason: str


@dataclass(slots=True)
class Resident:
    """A replica that may leave, as the search sees it."""

    replica: Replica
    tier: int
    price: float
    gives_mb: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sacrifice:
    """Who leaves, the highest tier among them, and their prices together."""

    leaving: tuple[Resident, ...]
    tier: int
    price: float


def displaceable(
    replica: Replica,
    profile: Profile,
    incoming: Profile,
    *,
    node: str,
    now: float,
    min_residency_secs: float = 0.0,
) -> bool:
    """Tell whether `replica` may leave `node` for `incoming` now."""
    return displaceable_when_idle(replica, profile, incoming, node=node) and leaves_at_once(
        replica, now, min_residency_secs
    )


def leaves_at_once(replica: Replica, now: float, min_residency_secs: float) -> bool:
    """Tell whether nobody uses it and it has been there for its minimum."""
    if replica.in_flight or replica.queued:
        return False
    return replica.loaded_at is None or now - replica.loaded_at >= min_residency_secs


def displaceable_when_idle(
    replica: Replica, profile: Profile, incoming: Profile, *, node: str
) -> bool:
    """Tell whether `replica` may leave for `incoming` once nobody uses it any more."""
    if replica.status is not Status.LOADED:
        return False
    return node not in profile.pinned_on and profile.residency_class <= incoming.residency_class


def may_share(one: Profile, other: Profile) -> bool:
    """Tell whether two models may be on one device."""
    return other.id not in one.apart_from and one.id not in other.apart_from


def cheapest(
    short_mb: Mapping[int, int], forced: Sequence[Resident], others: Sequence[Resident]
) -> Sacrifice | None:
    """Return who leaves so that no device is `short_mb` any more; None if that cannot be.

    All of `forced` leave in any case. Whatever the order of the candidates, the answer is the same.
    """
    missing = {
        index: left
        for index, mb in short_mb.items()
        if (left := mb - sum(one.gives_mb.get(index, 0) for one in forced)) > 0
    }
    tier = max((one.tier for one in forced), default=None)
    chosen = _search_by_tier(missing, others, tier)
    if chosen is None:
        return None
    leaving = tuple(sorted([*forced, *chosen], key=_cheapest_first))
    return Sacrifice(
        leaving=leaving,
        tier=max((one.tier for one in leaving), default=0),
        price=sum(one.price for one in leaving),
    )


def _search_by_tier(
    missing: Mapping[int, int], others: Sequence[Resident], touched: int | None
) -> Sequence[Resident] | None:
    """Return the cheapest of the sets that suffice and reach no higher tier than they must."""
    if not missing:
        return ()
    useful = sorted(
        (one for one in others if any(one.gives_mb.get(index) for index in missing)),
        key=_cheapest_first,
    )
    tiers = {one.tier for one in useful}
    if touched is not None:
        tiers = {touched, *(tier for tier in tiers if tier > touched)}
    for tier in sorted(tiers):
        search = _Search(missing, [one for one in useful if one.tier <= tier])
        if (chosen := search.cheapest()) is not None:
            return chosen
    return None


def _cheapest_first(one: Resident) -> tuple[float, str]:
    return one.price, one.replica.model


class _Search:
    """The cheapest subset of some residents that gives each device what it misses.

    Depth first through the residents, the cheapest first, each taken or not. A branch ends when
    what is still missing, at the size of the largest and the price of the cheapest of those still
    to come, would make it dearer than the best set so far, or as dear and no smaller.
    """

    def __init__(self, missing: Mapping[int, int], order: Sequence[Resident]) -> None:
        self._missing = tuple(missing.values())
        self._order = order
        self._gives = [tuple(one.gives_mb.get(index, 0) for index in missing) for one in order]
        self._largest, self._together = _ahead(self._gives, len(missing))
        self._best: tuple[int, ...] = ()
        self._best_price = 0.0
        self._left = SEARCH_LIMIT

    def cheapest(self) -> list[Resident] | None:
        """Return the subset; None when all of them together do not suffice."""
        if any(map(gt, self._missing, self._together[0])):
            return None
        # One answer exists from the start, however early the search has to stop.
        self._best = self._enough()
        self._best_price = self._price(self._best)
        self._descend(0, self._missing, (), 0.0)
        return [self._order[at] for at in self._best]

    def _descend(
        self, at: int, missing: tuple[int, ...], chosen: tuple[int, ...], price: float
    ) -> None:
        self._left -= 1
        if max(missing) <= 0:
            chosen = self._needed(chosen, missing)
            price = self._price(chosen)
            if (price, len(chosen)) < (self._best_price, len(self._best)):
                self._best, self._best_price = chosen, price
            return
        if self._left <= 0 or any(map(gt, missing, self._together[at])):
            return
        more = max(
            -(-mb // most) for mb, most in zip(missing, self._largest[at], strict=True) if mb > 0
        )
        floor = price + more * self._order[at].price
        if floor > self._best_price * _DEARER:
            return
        if floor >= self._best_price / _DEARER and len(chosen) + more >= len(self._best):
            return
        gives = self._gives[at]
        if any(mb > 0 and give for mb, give in zip(missing, gives, strict=True)):
            still = tuple(map(sub, missing, gives))
            self._descend(at + 1, still, (*chosen, at), price + self._order[at].price)
        self._descend(at + 1, missing, chosen, price)

    def _enough(self) -> tuple[int, ...]:
        """Return as many of the cheapest as suffice, without those that are not needed."""
        missing, chosen = self._missing, list[int]()
        for at, gives in enumerate(self._gives):
            chosen.append(at)
            missing = tuple(map(sub, missing, gives))
            if max(missing) <= 0:
                break
        return self._needed(tuple(chosen), missing)

    def _needed(self, chosen: tuple[int, ...], missing: tuple[int, ...]) -> tuple[int, ...]:
        """Return `chosen`, which leave `missing`, without who is not needed, the dearest first."""
        for at in reversed(chosen):
            without = tuple(map(add, missing, self._gives[at]))
            if max(without) <= 0:
                missing = without
                chosen = tuple(one for one in chosen if one != at)
        return chosen

    def _price(self, chosen: tuple[int, ...]) -> float:
        return sum(self._order[at].price for at in chosen)


def _ahead(
    gives: Sequence[tuple[int, ...]], width: int
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Return, for each place in the order, the most one gives from there on, and all together."""
    largest, together = [(0,) * width], [(0,) * width]
    for one in reversed(gives):
        largest.append(tuple(map(max, one, largest[-1])))
        together.append(tuple(map(add, one, together[-1])))
    return largest[::-1], together[::-1]
