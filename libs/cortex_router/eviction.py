"""Which models must leave a set of devices so that another fits.

One predicate, `displaceable`, says who may leave; the gateway's ranking and the node's own load
path both call it, so they cannot disagree. A model leaves only when it is loaded, has nobody in
flight or queued, is not pinned to that node and is not of a higher residency class than the one
that comes: a class, not an order, so equals can swap both ways.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from cortex_router.view import Node, Profile, Replica, Status

SortKey: TypeAlias = tuple[float, ...]
Strategy: TypeAlias = Callable[[Replica, Profile], SortKey]

#: Beyond this many candidates the exact search gives way to the ordered one.
EXACT_SEARCH_LIMIT = 12


@dataclass(frozen=True, slots=True)
class Victim:
    """A model that has to leave, and why it was chosen."""

    model: str
    reason: str


def lru(replica: Replica, profile: Profile) -> SortKey:
    """Rank by last use, the oldest first; one never used is the oldest of all."""
    del profile
    return (replica.last_used or 0.0,)


def priority(replica: Replica, profile: Profile) -> SortKey:
    """Rank by residency class, the lowest first, then by last use."""
    return (float(profile.residency_class), replica.last_used or 0.0)


STRATEGIES: Mapping[str, Strategy] = {"lru": lru, "priority": priority}


def displaceable(
    replica: Replica,
    profile: Profile,
    incoming: Profile,
    *,
    node: str,
    now: float,
    min_residency_secs: float = 0.0,
) -> bool:
    """Tell whether `replica` may leave `node` for `incoming`."""
    if replica.status is not Status.LOADED or replica.busy:
        return False
    if node in profile.pinned_on or profile.residency_class > incoming.residency_class:
        return False
    return replica.last_used is None or now - replica.last_used >= min_residency_secs


def choose_victims(
    node: Node,
    devices: Sequence[int],
    share_mb: int,
    candidates: Iterable[tuple[Replica, Profile]],
    strategy: Strategy,
) -> tuple[Victim, ...] | None:
    """Return the cheapest models whose leaving makes `share_mb` free on each of `devices`.

    Fewest models first, then the strategy's order; None when not even all of them suffice.
    Models of unknown size give back nothing that could be counted on.
    """
    ranked = sorted(candidates, key=lambda pair: (strategy(*pair), pair[0].model))
    useful = [pair for pair in ranked if set(pair[0].devices) & set(devices)]
    if not _enough(node, devices, share_mb, useful):
        return None
    if len(useful) <= EXACT_SEARCH_LIMIT:
        for count in range(len(useful) + 1):
            for chosen in combinations(useful, count):
                if _enough(node, devices, share_mb, chosen):
                    return _victims(chosen)
    return _victims(_ordered_search(node, devices, share_mb, useful))


def _ordered_search(
    node: Node, devices: Sequence[int], share_mb: int, ranked: Sequence[tuple[Replica, Profile]]
) -> list[tuple[Replica, Profile]]:
    """Take in order until it is enough, then give back whoever was not needed after all."""
    chosen: list[tuple[Replica, Profile]] = []
    for pair in ranked:
        if _enough(node, devices, share_mb, chosen):
            break
        chosen.append(pair)
    for pair in list(reversed(chosen)):
        without = [one for one in chosen if one is not pair]
        if _enough(node, devices, share_mb, without):
            chosen = without
    return chosen


def _enough(
    node: Node,
    devices: Sequence[int],
    share_mb: int,
    leaving: Sequence[tuple[Replica, Profile]],
) -> bool:
    room = {device.index: device.room_mb for device in node.devices}
    for index in devices:
        have = room.get(index)
        if have is None:
            return False
        given_back = sum(
            replica.share_mb(profile.size_mb) or 0
            for replica, profile in leaving
            if index in replica.devices
        )
        if have + given_back < share_mb:
            return False
    return True


def _victims(chosen: Iterable[tuple[Replica, Profile]]) -> tuple[Victim, ...]:
    return tuple(
        Victim(
            replica.model,
            "never used"
            if replica.last_used is None
            else f"idle, class {profile.residency_class}, last used at {replica.last_used:.0f}",
        )
        for replica, profile in chosen
    )
