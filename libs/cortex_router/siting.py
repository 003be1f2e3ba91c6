"""On which node of the fleet a model is loaded: the best of what `place` says of each.

Asking `place` costs a hundred times more than a look at a node. So the nodes are asked in the order
of what they could say at best, until no other could be better: the answer is that of asking all.
"""

from collections.abc import Callable, Mapping
from heapq import heapify, heappop
from typing import TypeAlias

from cortex_router.eviction import Foreseeing, Strategy, Wanted, price_of
from cortex_router.lifecycle import Status
from cortex_router.nodes import Node, Profile
from cortex_router.placement import Fit, fit_order, place
from cortex_router.policy import Policy
from cortex_router.view import Entry, FleetView, current

Site: TypeAlias = tuple[str, Fit]
_Bound: TypeAlias = tuple[int, float]
#: Two sums of the same prices may differ in their last bits: that does not make one dearer.
_DEARER = 1.0 + 1e-9
_NOBODY_LOADED = float("inf")


def best_site(
    view: FleetView, entries: list[Entry], profile: Profile, policy: Policy, now: float
) -> Site | None:
    """Return where to load now, on a preferred node if it can be; else where to be next."""
    if preferred := frozenset((*profile.pinned_on, *profile.preferred_on)):
        groups = [
            [entry for entry in entries if entry.node.name in preferred],
            [entry for entry in entries if entry.node.name not in preferred],
        ]
    else:
        groups = [entries]
    for group in groups:
        if (found := free_site(view, group, profile, policy, now)) is not None:
            return found
        if (found := _cleared_site(view, group, profile, policy, now)) is not None:
            return found
    return _cleared_site(view, entries, profile, policy, now, once_idle=True)


def free_site(
    view: FleetView, entries: list[Entry], profile: Profile, policy: Policy, now: float
) -> Site | None:
    """Return the node with the most room to spare, where nobody has to leave; equals by name."""
    share, last = profile.share_mb or 0, profile.min_devices - 1
    # The room on its emptiest devices is the most that a node could have to spare.
    queue = [
        (-rooms[last], node.name, entry)
        for entry in entries
        if last < len(rooms := (node := entry.node).rooms_mb) and rooms[last] >= share
    ]
    if profile.share_mb is None:  # a node that did not tell its rooms has the last word
        queue += [(0, e.node.name, e) for e in entries if last >= len(e.node.rooms_mb)]
    heapify(queue)
    best: tuple[int, str, Fit] | None = None
    while queue:
        room, name, entry = heappop(queue)
        if best is not None and best[:2] < (room + share, name):
            break
        fit = place(current(entry), profile, view.profiles, policy.rules, now)
        if isinstance(fit, Fit) and not fit.victims:
            found = (-fit.spare_mb, name, fit)
            best = found if best is None or found[:2] < best[:2] else best
    return None if best is None else best[1:]


def _cleared_site(
    view: FleetView,
    entries: list[Entry],
    profile: Profile,
    policy: Policy,
    now: float,
    *,
    once_idle: bool = False,
) -> Site | None:
    """Return the node with the cheapest sacrifice, then the most room, then the first by name."""
    wanted, strategy = view.wanted(now), policy.rules.strategy
    floor = _floor(strategy, view.profiles, wanted, now)
    queue = [
        (floor(node), node.name, entry)
        for entry in entries
        if (node := entry.node).longest_idle_since < _NOBODY_LOADED
    ]
    heapify(queue)
    share, count = profile.share_mb or 0, profile.min_devices
    best: tuple[tuple[bool, int, float, int], str, Fit] | None = None
    while queue:
        (tier, price), name, entry = heappop(queue)
        if best is not None and _above(tier, price, best[2]):
            break
        fewest = _fewest_leaving(entry.node, share, count)
        if fewest is None or (best is not None and _above(tier, price * fewest, best[2])):
            continue
        fit = place(
            current(entry),
            profile,
            view.profiles,
            policy.rules,
            now,
            once_idle=once_idle,
            wanted=wanted,
        )
        if isinstance(fit, Fit):
            found = (fit_order(fit)[:4], name, fit)
            best = found if best is None or found[:2] < best[:2] else best
    return None if best is None else best[1:]


def _above(tier: int, price: float, best: Fit) -> bool:
    return (tier, price) > (best.tier, best.price * _DEARER)


def _floor(
    strategy: Strategy, profiles: Mapping[str, Profile], wanted: Wanted, now: float
) -> Callable[[Node], _Bound]:
    """Return what tells the least that a sacrifice of one model on a node would be worth."""
    if isinstance(strategy, Foreseeing):
        return lambda node: strategy.floor(node.longest_idle_since, now)

    def floor(node: Node) -> _Bound:
        loaded = [
            (replica, profiles.get(replica.model) or Profile(id=replica.model))
            for replica in node.replicas
            if replica.status is Status.LOADED
        ]
        return (
            min(strategy.tier(replica, theirs) for replica, theirs in loaded),
            min(price_of(strategy, replica, theirs, now, wanted) for replica, theirs in loaded),
        )

    return floor


def _fewest_leaving(node: Node, share_mb: int, count: int) -> int | None:
    """Return how many have to leave at least; None if not even all of them would do."""
    for leaving, rooms in enumerate(node.relieved_mb):
        if count <= len(rooms) and rooms[count - 1] >= share_mb:
            return max(1, leaving)
    return None
