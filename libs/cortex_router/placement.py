"""Where on one node a model can go: device by device, never against a sum.

A model on N devices needs its share on each of N devices at once. Counted per device are free
memory, less what loads in progress were promised, plus what displaceable residents would give back.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import TypeAlias

from cortex_router.eviction import (
    NOBODY,
    Lru,
    Resident,
    Sacrifice,
    Strategy,
    Victim,
    cheapest,
    displaceable_when_idle,
    leaves_at_once,
    may_share,
)
from cortex_router.lifecycle import RESIDENT
from cortex_router.nodes import Device, Node, Profile, Replica

#: More device sets than this are not compared one by one; nodes have a handful of devices.
MAX_DEVICE_SETS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A way to place a model: devices, who leaves, and the room left on the tightest device.

    `once_idle` are those who have to leave too and cannot yet: somebody uses them, or they have
    just come. `tier` and `price` are what the strategy says the sacrifice is worth.
    """

    devices: tuple[int, ...]
    evict: tuple[Victim, ...] = ()
    once_idle: tuple[Victim, ...] = ()
    spare_mb: int | None = None
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
    wanted: Callable[[str], float | None] | None = None,
) -> Placement:
    """Return the best way to put `profile` on `node`, or why there is none.

    Fitting without an eviction wins, then the cheapest sacrifice, then the most room left, then the
    lowest device numbers. `only_devices` restricts the choice to exactly these devices. With
    `once_idle` models in use count as leaving too, as soon as they can. `wanted` tells how often a
    model was asked for lately, per second.
    """
    if (barred := barred_from(node, profile)) is not None:
        return barred
    usable = [d for d in node.devices if _large_enough(d, profile)]
    if only_devices is not None:
        usable = [d for d in usable if d.index in only_devices]
    if len(usable) < profile.min_devices:
        return NoFit(reason="too_few_devices", detail=_too_few(node, profile), ever=False)
    share = profile.share_mb
    if share is None:
        return _place_unknown(usable, profile)

    question = _Question(
        node, profile, profiles, rules, now, once_idle=once_idle, wanted=wanted or _nobody_counted
    )
    fits = [
        fit
        for devices in islice(combinations(usable, profile.min_devices), MAX_DEVICE_SETS)
        if (fit := question.fit_on(devices, share)) is not None
    ]
    if not fits:
        free = max((d.room_mb or 0 for d in usable), default=0)
        return NoFit(
            reason="no_room",
            detail=f"needs {share} MiB on each of {profile.min_devices} device(s); the best has "
            f"{free} MiB free and what may leave does not make enough room",
            ever=True,
        )
    return min(fits, key=fit_order)


def fit_order(fit: Fit) -> tuple[bool, int, float, int, tuple[int, ...]]:
    """Return the key by which ways to place one model are compared; the lowest is the best."""
    sacrifice = bool(fit.evict or fit.once_idle)
    return sacrifice, fit.tier, fit.price, -(fit.spare_mb or 0), fit.devices


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
    needs = [mb for mb in (profile.min_device_mb, profile.share_mb) if mb is not None]
    return device.total_mb is None or all(device.total_mb >= mb for mb in needs)


def _too_few(node: Node, profile: Profile) -> str:
    needs = max(profile.min_device_mb or 0, profile.share_mb or 0)
    totals = ", ".join(f"{d.index}: {d.total_mb} MiB" for d in node.devices) or "none"
    return f"needs {profile.min_devices} device(s) of at least {needs} MiB; devices: {totals}"


def _place_unknown(usable: Sequence[Device], profile: Profile) -> Fit:
    """Without a size, take the emptiest devices and let the node say if that is not enough."""
    by_room = sorted(usable, key=lambda d: (-(d.room_mb or 0), d.index))
    return Fit(devices=tuple(sorted(d.index for d in by_room[: profile.min_devices])))


def _nobody_counted(_model: str) -> float | None:
    return None


class _Question:
    """One model, one node: who may leave is worked out once for all sets of devices."""

    def __init__(
        self,
        node: Node,
        profile: Profile,
        profiles: Mapping[str, Profile],
        rules: Rules,
        now: float,
        *,
        once_idle: bool,
        wanted: Callable[[str], float | None],
    ) -> None:
        self._node, self._now = node, now
        self._may_leave: dict[str, Resident] = {}
        self._at_once: set[str] = set()
        self._apart: dict[str, Replica] = {}
        strategy, least = rules.strategy, rules.min_residency_secs
        for replica in node.replicas:
            if (model := replica.model) == profile.id:
                continue
            theirs = profiles.get(model) or Profile(id=model)
            apart = not may_share(profile, theirs)
            if apart and replica.status in RESIDENT:
                self._apart[model] = replica
            if not displaceable_when_idle(replica, theirs, profile, node=node.name):
                continue
            at_once = leaves_at_once(replica, now, least)
            if not (at_once or once_idle):
                continue
            resident = Resident(
                replica,
                strategy.tier(replica, theirs),
                strategy.price(replica, theirs, now, wanted(model)),
                dict.fromkeys(replica.devices, replica.share_mb(theirs.size_mb) or 0),
                apart,
            )
            self._may_leave[model] = resident
            if at_once:
                self._at_once.add(model)

    def fit_on(self, devices: tuple[Device, ...], share_mb: int) -> Fit | None:
        """Return how the model fits on exactly these devices, None when it does not."""
        indices = {device.index for device in devices}
        apart = False
        for model, replica in self._apart.items():
            if not indices.isdisjoint(replica.devices):
                apart = True
                if model not in self._may_leave:
                    return None
        rooms = [device.room_mb for device in devices]
        spare = min((mb for mb in rooms if mb is not None), default=0) - share_mb
        if not apart and spare >= 0 and None not in rooms:
            sacrifice: Sacrifice | None = NOBODY
        else:
            here = [
                one
                for one in self._may_leave.values()
                if not indices.isdisjoint(one.replica.devices)
            ]
            sacrifice = cheapest(devices, share_mb, here)
        if sacrifice is None:
            return None
        leaving = [one.replica for one in sacrifice.leaving]
        return Fit(
            devices=tuple(sorted(indices)),
            evict=tuple(self._victim(one) for one in leaving if one.model in self._at_once),
            once_idle=tuple(self._victim(one) for one in leaving if one.model not in self._at_once),
            spare_mb=spare,
            tier=sacrifice.tier,
            price=sacrifice.price,
        )

    def _victim(self, replica: Replica) -> Victim:
        if replica.model in self._apart:
            return Victim(replica.model, "may not share a device with it")
        if replica.busy:
            users = replica.in_flight + replica.queued
            return Victim(replica.model, f"once its {users} request(s) have ended")
        if replica.model not in self._at_once:
            return Victim(replica.model, "once it has been there for its minimum")
        if replica.last_used is None:
            return Victim(replica.model, "never used")
        return Victim(replica.model, f"idle for {max(0.0, self._now - replica.last_used):.0f} s")
