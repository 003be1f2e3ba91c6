"""On which node of the fleet a model is loaded: the best of what `place` says of each.

Asking `place` costs a hundred times more than a look at a node. So the nodes are asked in the order
of what they could say at best, until no other could be better: the answer is that of asking all.
"""

from collections.abc import Callable, Mapping
from functools import cache
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from cortex_router.eviction import Foreseeing, Strategy, Wanted, price_of
from cortex_router.lifecycle import Status
from cortex_router.nodes import DEFAULT_PRIORITY, Glance, Node, Profile
from cortex_router.placement import Fit, fit_order, place
from cortex_router.policy import Policy
from cortex_router.view import Entry, FleetView, current

Site: TypeAlias = tuple[str, Fit]
_Bound: TypeAlias = tuple[int, float]
#: Two sums of the same prices may differ in their last bits: that does not make one dearer.
_DEARER = 1.0 + 1e-9
#: Below every bound.
_NO_PRICE: _Bound = (-(2**63), 0.0)


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
    wanted, strategy = cache(view.wanted(now)), policy.rules.strategy
    share, count = profile.share_mb or 0, profile.min_devices
    look = _look(strategy, view.profiles, wanted, now)
    # What a node could say at best: at a glance first, then looked at, then asked.
    floor = _floor(strategy, view.profiles, now)
    queue = [
        (floor(glance), node.name, False, entry)
        for entry in entries
        if (glance := (node := entry.node).glance) is not None
    ]
    heapify(queue)
    best: tuple[tuple[bool, int, float, int], str, Fit] | None = None
    while queue:
        bound, name, looked, entry = heappop(queue)
        if best is not None and _above(bound, best[2]):
            break
        if not looked:
            fewest = _fewest_leaving(entry.node, share, count)
            if fewest is not None:
                heappush(queue, (look(entry.node, fewest), name, True, entry))
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


def _above(bound: _Bound, best: Fit) -> bool:
    return bound > (best.tier, best.price * _DEARER)


def _floor(
    strategy: Strategy, profiles: Mapping[str, Profile], now: float
) -> Callable[[Glance], _Bound]:
    """Return what tells a bound of what a look would find, as far as the strategy foresees."""
    if not isinstance(strategy, Foreseeing):
        return lambda _: _NO_PRICE
    # A model that nobody listed is of the default class.
    classes = {DEFAULT_PRIORITY, *(profile.residency_class for profile in profiles.values())}
    lowest = min(classes)
    return lambda glance: strategy.floor(glance, lowest, now)


def _look(
    strategy: Strategy, profiles: Mapping[str, Profile], wanted: Wanted, now: float
) -> Callable[[Node, int], _Bound]:
    """Return what tells the least that a sacrifice of so many models on a node would be worth."""

    def look(node: Node, fewest: int) -> _Bound:
        loaded = [
            (replica, profiles.get(replica.model) or Profile(id=replica.model))
            for replica in node.replicas
            if replica.status is Status.LOADED
        ]
        prices = [price_of(strategy, one, theirs, now, wanted) for one, theirs in loaded]
        tier = min(strategy.tier(replica, theirs) for replica, theirs in loaded)
        return tier, min(prices) if fewest == 1 else sum(sorted(prices)[:fewest])

    return look


def _fewest_leaving(node: Node, share_mb: int, count: int) -> int | None:
    """Return how many have to leave at least; None if not even all of them would do."""
    for leaving, rooms in enumerate(node.relieved_mb):
        if count <= len(rooms) and rooms[count - 1] >= share_mb:
            return max(1, leaving)
    return None
