"""Where on one node a model can go: device by device, never against a sum.

A model on N devices needs its share on each of N devices at once. Counted per device are free
memory, less what loads in progress were promised, plus what displaceable residents would give back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from cortex_router.eviction import Strategy, Victim, choose_victims, displaceable, lru
from cortex_router.view import Device, Node, Profile, Replica

#: More device sets than this are not compared one by one; nodes have a handful of devices.
MAX_DEVICE_SETS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A way to place a model: devices, who leaves, and the room left on the tightest device."""

    devices: tuple[int, ...]
    evict: tuple[Victim, ...] = ()
    spare_mb: int | None = None


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

    strategy: Strategy = lru
    min_residency_secs: float = 0.0


def place(
    node: Node,
    profile: Profile,
    profiles: Mapping[str, Profile],
    rules: Rules,
    now: float,
    *,
    only_devices: Sequence[int] | None = None,
) -> Placement:
    """Return the best way to put `profile` on `node`, or why there is none.

    Fitting without an eviction wins, then the fewest victims, then the most room left, then the
    lowest device numbers. `only_devices` restricts the choice to exactly these devices.
    """
    if (barred := _barred(node, profile)) is not None:
        return barred
    usable = [d for d in node.devices if _large_enough(d, profile)]
    if only_devices is not None:
        usable = [d for d in usable if d.index in only_devices]
    if len(usable) < profile.min_devices:
        return NoFit(reason="too_few_devices", detail=_too_few(node, profile), ever=False)
    share = profile.share_mb
    if share is None:
        return _place_unknown(usable, profile)

    fits = [
        fit
        for devices in _device_sets(usable, profile.min_devices)
        if (fit := _fit_on(node, devices, share, profile, profiles, rules, now)) is not None
    ]
    if not fits:
        free = max((d.room_mb or 0 for d in usable), default=0)
        return NoFit(
            reason="no_room",
            detail=f"needs {share} MiB on each of {profile.min_devices} device(s); the best has "
            f"{free} MiB free and what may leave does not make enough room",
            ever=True,
        )
    return min(fits, key=lambda fit: (len(fit.evict), -(fit.spare_mb or 0), fit.devices))


def _barred(node: Node, profile: Profile) -> NoFit | None:
    homes = profile.pinned_on or profile.only_on
    if homes and node.name not in homes:
        return NoFit(reason="not_here", detail=f"belongs on {', '.join(homes)}", ever=False)
    if profile.harness and node.harnesses is not None and profile.harness not in node.harnesses:
        detail = f"needs the harness {profile.harness!r}, the node has {', '.join(node.harnesses)}"
        return NoFit(reason="no_harness", detail=detail, ever=False)
    return None


def _large_enough(device: Device, profile: Profile) -> bool:
    """Tell whether the empty device could take its share; an unknown total gets a chance."""
    needs = [mb for mb in (profile.min_device_mb, profile.share_mb) if mb is not None]
    return device.total_mb is None or all(device.total_mb >= mb for mb in needs)


def _too_few(node: Node, profile: Profile) -> str:
    needs = max(profile.min_device_mb or 0, profile.share_mb or 0)
    totals = ", ".join(f"{d.index}: {d.total_mb} MiB" for d in node.devices) or "none"
    return f"needs {profile.min_devices} device(s) of at least {needs} MiB; devices: {totals}"


def _device_sets(usable: Sequence[Device], count: int) -> list[tuple[int, ...]]:
    sets: list[tuple[int, ...]] = []
    for devices in combinations([d.index for d in usable], count):
        sets.append(devices)
        if len(sets) == MAX_DEVICE_SETS:
            break
    return sets


def _place_unknown(usable: Sequence[Device], profile: Profile) -> Fit:
    """Without a size, take the emptiest devices and let the node say if that is not enough."""
    by_room = sorted(usable, key=lambda d: (-(d.room_mb or 0), d.index))
    return Fit(devices=tuple(sorted(d.index for d in by_room[: profile.min_devices])))


def _fit_on(
    node: Node,
    devices: tuple[int, ...],
    share_mb: int,
    profile: Profile,
    profiles: Mapping[str, Profile],
    rules: Rules,
    now: float,
) -> Fit | None:
    candidates: list[tuple[Replica, Profile]] = []
    for replica in node.replicas:
        theirs = profiles.get(replica.model) or Profile(id=replica.model)
        if replica.model != profile.id and displaceable(
            replica,
            theirs,
            profile,
            node=node.name,
            now=now,
            min_residency_secs=rules.min_residency_secs,
        ):
            candidates.append((replica, theirs))
    victims = choose_victims(node, devices, share_mb, candidates, rules.strategy)
    if victims is None:
        return None
    room = [d.room_mb for d in node.devices if d.index in devices]
    spare = min((mb for mb in room if mb is not None), default=0) - share_mb
    return Fit(devices=devices, evict=victims, spare_mb=spare)
