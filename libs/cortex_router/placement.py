"""Where on one node a model can go: device by device, never against a sum.

A model on N devices needs its share on each of N devices at once. Counted per device are free
memory, less what loads in progress were promised, plus what displaceable residents would give back.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import TypeAlias

from cortex_router.eviction import (
    Lru,
    Resident,
    Sacrifice,
    Strategy,
    Victim,
    Wanted,
    cheapest,
    displaceable_when_idle,
    leaves_at_once,
    may_share,
    price_of,
)
from cortex_router.lifecycle import RESIDENT
from cortex_router.nodes import Device, Node, Profile, Replica

#: More device sets than this are not compared; those with the most room to be made come first.
MAX_DEVICE_SETS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A way to place a model: devices, who leaves, and the room left on the tightest device.

    `once_idle` are those who have to leave too and cannot yet: somebody uses them, or they have
    just come. `tier` and `price` are what the strategy says the sacrifice is worth. `spare_mb`
    counts a model of unknown size as nothing.
    """

    devices: tuple[int, ...]
    evict: tuple[Victim, ...] = ()
    once_idle: tuple[Victim, ...] = ()
    spare_mb: int = 0
    tier: int = 0
    price: float = 0.0

    @property
    def victims(self) -> tuple[str, ...]:
        """Every model that has to leave."""
        return tuple(victim.model for victim in (*self.evict, *self.once_idle))


@dataclass(frozen=True, slots=True, kw_only=True)
class NoFit:
    """Why there is no way. `ever` tells whether it could fit once others have left or ended."""

    reason: str
    detail: str
    ever: bool


Placement: TypeAlias = Fit | NoFit


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The operator's choices that placement obeys."""

    strategy: Strategy = field(default_factory=Lru)
    min_residency_secs: float = 0.0


def place(
    node: Node,
    profile: Profile,
    profiles: Mapping[str, Profile],
    rules: Rules,
    now: float,
    *,
    only_devices: Sequence[int] | None = None,
    once_idle: bool = False,
    wanted: Wanted | None = None,
) -> Placement:
    """Return the best way to put `profile` on `node`, or why there is none.

    Fitting without an eviction wins, then the cheapest sacrifice, then the most room left, then the
    lowest device numbers. `only_devices` restricts the choice to these devices. With `once_idle`
    models in use count as leaving too, as soon as they can. `wanted` tells how often a model was
    asked for lately, per second.
    """
    devices = [d for d in node.devices if only_devices is None or d.index in only_devices]
    verdict = barred_from(node, profile) or never_fits(profile, devices)
    if verdict is not None:
        return verdict
    large = [device for device in devices if _large_enough(device, profile)]
    neighbours = [
        (replica, profiles.get(model) or Profile(id=model))
        for model, replica in node.by_model.items()
        if model != profile.id
    ]
    apart = {
        replica.model: replica.devices
        for replica, theirs in neighbours
        if replica.status in RESIDENT and not may_share(profile, theirs)
    }
    if (free := _free_fit(_without(large, apart.values()), profile)) is not None:
        return free
    leavers = [
        _resident(replica, theirs, rules, now, wanted)
        for replica, theirs in neighbours
        if displaceable_when_idle(replica, theirs, profile, node=node.name)
        and (once_idle or leaves_at_once(replica, now, rules.min_residency_secs))
    ]
    leaving = {one.replica.model for one in leavers}
    staying = [devices for model, devices in apart.items() if model not in leaving]
    cleared = _cleared(_without(large, staying), profile, leavers, apart)
    if cleared is None:
        best = max((device.room_mb or 0 for device in large), default=0)
        return NoFit(
            reason="no_room",
            detail=f"needs {profile.share_mb or 0} MiB on each of {profile.min_devices} device(s); "
            f"the best has {best} MiB free and what may leave does not make enough room",
            ever=True,
        )
    at_once = frozenset(
        one.replica.model
        for one in cleared.sacrifice.leaving
        if leaves_at_once(one.replica, now, rules.min_residency_secs)
    )
    victims = [
        Victim(one.replica.model, _why(one, now, apart, at_once))
        for one in cleared.sacrifice.leaving
    ]
    return Fit(
        devices=cleared.devices,
        evict=tuple(victim for victim in victims if victim.model in at_once),
        once_idle=tuple(victim for victim in victims if victim.model not in at_once),
        spare_mb=cleared.spare_mb,
        tier=cleared.sacrifice.tier,
        price=cleared.sacrifice.price,
    )


def fit_order(fit: Fit) -> tuple[bool, int, float, int, tuple[int, ...]]:
    """Return the key by which ways to place one model are compared; the lowest is the best."""
    return bool(fit.victims), fit.tier, fit.price, -fit.spare_mb, fit.devices


def never_fits(profile: Profile, devices: Sequence[Device]) -> NoFit | None:
    """Return why these devices, were they empty, could not hold the model; None when they could."""
    if sum(_large_enough(device, profile) for device in devices) >= profile.min_devices:
        return None
    needs = max(profile.min_device_mb or 0, profile.share_mb or 0)
    totals = ", ".join(
        f"{d.index}: {d.total_mb} MiB" for d in sorted(devices, key=lambda one: one.index)
    )
    return NoFit(
        reason="too_few_devices",
        detail=f"needs {profile.min_devices} device(s) of at least {needs} MiB; "
        f"devices: {totals or 'none'}",
        ever=False,
    )


def barred_from(node: Node, profile: Profile) -> NoFit | None:
    """Return why the model may not be on this node at all, None when it may."""
    homes = profile.pinned_on or profile.only_on
    if homes and node.name not in homes:
        return NoFit(reason="not_here", detail=f"belongs on {', '.join(homes)}", ever=False)
    if node.name in profile.excluded_from:
        return NoFit(reason="not_here", detail="the catalogue excludes it here", ever=False)
    if profile.harness and node.harnesses is not None and profile.harness not in node.harnesses:
        detail = f"needs the harness {profile.harness!r}, the node has {', '.join(node.harnesses)}"
        return NoFit(reason="no_harness", detail=detail, ever=False)
    return None


def _large_enough(device: Device, profile: Profile) -> bool:
    """Tell whether the empty device could take its share; an unknown total gets a chance."""
    total = device.total_mb
    return total is None or total >= max(profile.min_device_mb or 0, profile.share_mb or 0)


def _without(devices: Sequence[Device], taken: Iterable[tuple[int, ...]]) -> list[Device]:
    """Return the devices that none of `taken` names."""
    indices = {index for some in taken for index in some}
    return [device for device in devices if device.index not in indices]


def _room_mb(device: Device, profile: Profile) -> int | None:
    """Return the device's room; an unknown one is no room, unless the size is unknown as well.

    Then the node has the last word.
    """
    return 0 if device.room_mb is None and profile.share_mb is None else device.room_mb


def _free_fit(devices: Sequence[Device], profile: Profile) -> Fit | None:
    """Return the devices with the most room, if the model fits there as they are."""
    share, count = profile.share_mb or 0, profile.min_devices
    rooms = sorted(
        (-room, device.index)
        for device in devices
        if (room := _room_mb(device, profile)) is not None and room >= share
    )
    if len(rooms) < count:
        return None
    tightest = rooms[count - 1][0]
    roomy = sorted(index for room, index in rooms if room <= tightest)
    return Fit(devices=tuple(roomy[:count]), spare_mb=-tightest - share)


def _resident(
    replica: Replica, theirs: Profile, rules: Rules, now: float, wanted: Wanted | None
) -> Resident:
    return Resident(
        replica,
        rules.strategy.tier(replica, theirs),
        price_of(rules.strategy, replica, theirs, now, wanted),
        dict.fromkeys(replica.devices, replica.share_mb(theirs.size_mb) or 0),
    )


@dataclass(frozen=True, slots=True)
class _Cleared:
    """Devices, who has to leave them, and the room that leaves on the tightest."""

    devices: tuple[int, ...]
    sacrifice: Sacrifice
    spare_mb: int

    @property
    def order(self) -> tuple[int, float, int, tuple[int, ...]]:
        return self.sacrifice.tier, self.sacrifice.price, -self.spare_mb, self.devices


def _cleared(
    devices: Sequence[Device],
    profile: Profile,
    leavers: Sequence[Resident],
    apart: Collection[str],
) -> _Cleared | None:
    """Return the devices that are the cheapest to clear, None when none can be."""
    share = profile.share_mb or 0
    rooms = {d.index: mb for d in devices if (mb := _room_mb(d, profile)) is not None}
    relieved = {i: mb + sum(one.gives_mb.get(i, 0) for one in leavers) for i, mb in rooms.items()}
    by_relief = sorted(rooms, key=lambda index: (-relieved[index], index))
    best: _Cleared | None = None
    for chosen in islice(combinations(by_relief, profile.min_devices), MAX_DEVICE_SETS):
        here = [one for one in leavers if not one.gives_mb.keys().isdisjoint(chosen)]
        forced = [one for one in here if one.replica.model in apart]
        others = [one for one in here if one.replica.model not in apart]
        sacrifice = cheapest({i: share - rooms[i] for i in chosen}, forced, others)
        if sacrifice is None:
            continue
        spare = min(
            rooms[i] + sum(one.gives_mb.get(i, 0) for one in sacrifice.leaving) for i in chosen
        )
        cleared = _Cleared(tuple(sorted(chosen)), sacrifice, spare - share)
        if best is None or cleared.order < best.order:
            best = cleared
    return best


def _why(one: Resident, now: float, apart: Collection[str], at_once: Collection[str]) -> str:
    """Return why a victim was chosen, or what it waits for."""
    replica = one.replica
    if replica.model in apart:
        return "may not share a device with it"
    if replica.busy:
        return f"once its {replica.in_flight + replica.queued} request(s) have ended"
    if replica.model not in at_once:
        return "once it has been there for its minimum"
    if replica.last_used is None:
        return "never used"
    return f"idle for {max(0.0, now - replica.last_used):.0f} s"
