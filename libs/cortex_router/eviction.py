"""Which models must leave a set of devices so that another fits.

One predicate, `displaceable`, says who may leave; the gateway's ranking and the node's own load
path both call it, so they cannot disagree. A model leaves only when it is loaded, has nobody in
flight or queued, has been there for its minimum, is not pinned to that node and is not of a higher
residency class than the one that comes: a class, not an order, so equals can swap both ways.

Who leaves is the cheapest set that suffices. A `Strategy` gives each model a tier and a price: no
higher tier is touched than needed, and within it the sum of prices is the least there is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cortex_router.lifecycle import Status
from cortex_router.nodes import Device, Profile, Replica

#: The search for the cheapest set looks at so many sets; a dozen candidates never need as many.
SEARCH_LIMIT = 8192
#: Added to every price: of two equally cheap sets the smaller one goes.
_SMALLEST_PRICE = 1e-9
#: How a load's length is guessed from a size, until one has been seen: seconds, and MiB a second.
LOAD_START_SECS = 2.0
LOAD_MB_PER_SEC = 1000.0


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


@dataclass(frozen=True, slots=True)
class Lru:
    """Whoever was used longest ago is the cheapest; one never used costs next to nothing."""

    def tier(self, replica: Replica, profile: Profile) -> int:
        """Return 0: all are alike."""
        del replica, profile
        return 0

    def price(
        self, replica: Replica, profile: Profile, now: float, wanted_per_sec: float | None
    ) -> float:
        """Return the chance of a next use, taken as 1 / (1 + idle seconds)."""
        del profile, wanted_per_sec
        return recency(replica, now)


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
        return recency(replica, now)


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
        """Return expected seconds of loading per second: load time x requests per second."""
        often = recency(replica, now) if wanted_per_sec is None else wanted_per_sec
        return load_secs(replica, profile) * often


STRATEGIES: Final[Mapping[str, Strategy]] = {"lru": Lru(), "priority": Priority(), "cost": Cost()}


def recency(replica: Replica, now: float) -> float:
    """Return 1 / (1 + seconds since the last use); 0 for one never used."""
    return 0.0 if replica.last_used is None else 1.0 / (1.0 + max(0.0, now - replica.last_used))


def load_secs(replica: Replica, profile: Profile) -> float:
    """Return how long the model takes to load: as seen, else guessed from its size."""
    if replica.load_secs is not None:
        return replica.load_secs
    size = replica.used_mb or profile.size_mb or 0
    return LOAD_START_SECS + size / LOAD_MB_PER_SEC


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
    forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sacrifice:
    """Who leaves, the highest tier among them, and their prices together."""

    leaving: tuple[Resident, ...] = ()
    tier: int = 0
    price: float = 0.0


NOBODY: Final = Sacrifice()


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
    devices: Sequence[Device], share_mb: int, candidates: Sequence[Resident]
) -> Sacrifice | None:
    """Return who leaves so that `share_mb` is free on each of `devices`; None if it cannot be.

    Those `forced` leave in any case. Models of unknown size give back nothing to be counted on.
    """
    short: dict[int, int] = {}
    for device in devices:
        if (room := device.room_mb) is None:
            return None
        short[device.index] = share_mb - room
    forced = [one for one in candidates if one.forced]
    for one in forced:
        _take(short, one.gives_mb)
    rest = [one for one in candidates if not one.forced]
    chosen = _search_by_tier({i: mb for i, mb in short.items() if mb > 0}, rest)
    if chosen is None:
        return None
    leaving = tuple(sorted([*forced, *chosen], key=lambda one: one.replica.model))
    return Sacrifice(
        leaving=leaving,
        tier=max((one.tier for one in leaving), default=0),
        price=sum(one.price for one in leaving),
    )


def _search_by_tier(short: Mapping[int, int], rest: list[Resident]) -> list[Resident] | None:
    if not short:
        return []
    useful = [one for one in rest if any(one.gives_mb.get(index) for index in short)]
    for tier in sorted({one.tier for one in useful}):
        allowed = [one for one in useful if one.tier <= tier]
        if (chosen := _search(short, allowed)) is not None:
            return chosen
    return None


def _search(short: Mapping[int, int], useful: list[Resident]) -> list[Resident] | None:
    """Return the cheapest subset that covers every shortage: depth first, cut off by price.

    The first descent takes the cheapest first and then gives back whom it did not need, so that an
    answer exists however early the search is stopped.
    """
    order = sorted(useful, key=lambda one: (one.price, one.replica.model))
    indices = tuple(short)
    ahead = [dict.fromkeys(indices, 0)]
    for one in reversed(order):
        ahead.append({i: ahead[-1][i] + one.gives_mb.get(i, 0) for i in indices})
    ahead.reverse()
    if any(ahead[0][i] < short[i] for i in indices):
        return None
    best = _greedy(short, order)
    best_key = _key(best)
    left = SEARCH_LIMIT

    def descend(at: int, missing: dict[int, int], chosen: list[Resident], price: float) -> None:
        nonlocal best, best_key, left
        left -= 1
        if not missing:
            if (key := _key(chosen)) < best_key:
                best, best_key = list(chosen), key
            return
        if left <= 0 or at == len(order) or price >= best_key[0]:
            return
        if any(ahead[at][i] < mb for i, mb in missing.items()):
            return
        one = order[at]
        if any(one.gives_mb.get(i) for i in missing):
            still = {i: mb - one.gives_mb.get(i, 0) for i, mb in missing.items()}
            chosen.append(one)
            descend(
                at + 1,
                {i: mb for i, mb in still.items() if mb > 0},
                chosen,
                price + one.price + _SMALLEST_PRICE,
            )
            chosen.pop()
        descend(at + 1, missing, chosen, price)

    descend(0, dict(short), [], 0.0)
    return best


def _greedy(short: Mapping[int, int], order: Sequence[Resident]) -> list[Resident]:
    missing, chosen = dict(short), list[Resident]()
    for one in order:
        if not any(mb > 0 for mb in missing.values()):
            break
        if any(mb > 0 and one.gives_mb.get(i) for i, mb in missing.items()):
            _take(missing, one.gives_mb)
            chosen.append(one)
    for one in sorted(chosen, key=lambda one: (-one.price, one.replica.model)):
        if all(mb + one.gives_mb.get(i, 0) <= 0 for i, mb in missing.items()):
            chosen.remove(one)
            _take(missing, {i: -mb for i, mb in one.gives_mb.items()})
    return chosen


def _key(chosen: Sequence[Resident]) -> tuple[float, int, tuple[str, ...]]:
    price = sum(one.price + _SMALLEST_PRICE for one in chosen)
    return price, len(chosen), tuple(sorted(one.replica.model for one in chosen))


def _take(short: dict[int, int], gives_mb: Mapping[int, int]) -> None:
    for index, mb in gives_mb.items():
        if index in short:
            short[index] -= mb
