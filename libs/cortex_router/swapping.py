"""Whose turn it is on one node, when more models are wanted than fit.

The one who owns a node's models calls `next_swaps` after every change and carries its steps out; it
keeps nothing else in mind. Demands are looked at in order of their oldest request:

1. one that fits beside everything older demands have been promised starts at once;
2. one that fits once models leave that have served their time starts when nobody uses them. A
   model has served its time when it has been there `amortise` times as long as its load took (its
   quantum), or when nobody has used it for `linger_secs`;
3. those of them in use are closed: they take no new requests, end those they have, and leave;
4. until enough have served their time, the demand holds. What it is waiting for stays its own:
   younger demands get only what it leaves over;
5. one that could not even have its turn if everybody who may leave did holds nobody up.

So what is resident is served in batches (A B A A C becomes A A A B C), no model leaves while it is
used, and two models cannot evict each other request by request: of any span of time at most
1 / (1 + amortise) is spent on loads that displaced a model in use.

The bound: let Q be the longest quantum, D the longest request, U the longest unload, L the longest
load, and n the number of older demands that can have their turn here. Then a demand that can have
its turn is loaded within (n + 1) (Q + D + U + L), as long as loads succeed. For the oldest: within
Q everybody in its way has served its time and is closed, since nobody new is put there; within D
they are idle, within U gone, within L it is loaded. Each of the others waits for that once for
every older one, and once for itself.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

from cortex_router.eviction import Victim, load_secs
from cortex_router.lifecycle import RESIDENT, Status
from cortex_router.nodes import Node, Profile, Replica
from cortex_router.placement import Fit, NoFit, Placement, Rules, place


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Requests that wait for a model: how many, and since when the oldest does (Unix seconds)."""

    profile: Profile
    count: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapping:
    """The operator's choices."""

    rules: Rules = field(default_factory=Rules)
    amortise: float = 1.0
    linger_secs: float = 5.0


@dataclass(frozen=True, slots=True)
class Start:
    """Load the model on these devices as soon as `evict`, which nobody uses, have been unloaded."""

    model: str
    devices: tuple[int, ...]
    evict: tuple[Victim, ...] = ()


@dataclass(frozen=True, slots=True)
class Close:
    """Let the model take no new requests: it makes way for `wanted_by`."""

    model: str
    wanted_by: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The demand waits; look again at `until` at the latest, None: at the next event."""

    model: str
    until: float | None
    reason: str


SwapStep: TypeAlias = Start | Close | Hold
_NONE_CLOSED: Mapping[str, str] = MappingProxyType({})


def next_swaps(
    node: Node,
    demands: Sequence[Demand],
    profiles: Mapping[str, Profile],
    swapping: Swapping,
    now: float,
    *,
    closed: Mapping[str, str] = _NONE_CLOSED,
    wanted: Callable[[str], float | None] | None = None,
) -> tuple[SwapStep, ...]:
    """Return what to do now, in order. `closed` maps models told to close to whom they make way."""
    steps: list[SwapStep] = []
    picture = node
    for demand in sorted(demands, key=lambda one: (one.since, one.profile.id)):
        turn = _Turn(picture, demand, profiles, swapping, now, closed, wanted)
        taken, plan = turn.decide()
        steps.extend(taken)
        if plan is not None:
            picture = _promised(picture, demand.profile, plan)
    return tuple(steps)


def quantum_secs(replica: Replica, profile: Profile, swapping: Swapping) -> float:
    """Return for how long a model stays once it is loaded, if somebody uses it."""
    return max(swapping.rules.min_residency_secs, swapping.amortise * load_secs(replica, profile))


def wait_bound_secs(
    *, older: int, quantum_secs: float, request_secs: float, unload_secs: float, load_secs: float
) -> float:
    """Return the longest time until a demand behind `older` others is loaded; see above."""
    return (older + 1) * (quantum_secs + request_secs + unload_secs + load_secs)


class _Turn:
    """One demand, and the residents as it finds them."""

    def __init__(
        self,
        node: Node,
        demand: Demand,
        profiles: Mapping[str, Profile],
        swapping: Swapping,
        now: float,
        closed: Mapping[str, str],
        wanted: Callable[[str], float | None] | None,
    ) -> None:
        self._node, self._demand, self._now = node, demand, now
        self._profiles, self._swapping = profiles, swapping
        self._wanted = wanted
        self._mine = frozenset(m for m, by in closed.items() if by == demand.profile.id)
        self._others = frozenset(closed) - self._mine

    def decide(self) -> tuple[list[SwapStep], Fit | None]:
        """Return the steps for this demand, and the place that is its own from now on."""
        model = self._demand.profile.id
        held = self._node.holds(model)
        if held is not None and held.status in RESIDENT:
            return [Hold(model, None, held.status.value)], None
        times = {r.model: self._served_at(r) for r in self._node.replicas}
        ready = frozenset(m for m, at in times.items() if at <= self._now)
        idle = frozenset(r.model for r in self._node.replicas if not r.busy)
        fit = self._place(ready & idle)
        if isinstance(fit, Fit):
            return [Start(model, fit.devices, fit.evict)], fit
        for candidates in ((ready & idle) | self._mine, ready):
            fit = self._place(candidates)
            if isinstance(fit, Fit):
                closing = [Close(v, model) for v in fit.victims if v not in self._mine]
                return [*closing, Hold(model, None, "draining")], fit
        return self._wait_for(times)

    def _wait_for(self, times: Mapping[str, float]) -> tuple[list[SwapStep], Fit | None]:
        """Return when enough residents will have served their time, or that they never will."""
        model = self._demand.profile.id
        last = self._place(frozenset(times))
        if isinstance(last, NoFit):
            return [Hold(model, None, last.reason)], None
        for at in sorted({at for at in times.values() if at > self._now}):
            fit = self._place(frozenset(m for m, served in times.items() if served <= at))
            if isinstance(fit, Fit):
                return [Hold(model, at, "serving_its_time")], fit
        return [Hold(model, None, "serving_its_time")], last

    def _served_at(self, replica: Replica) -> float:
        """Return when a resident has served its time, as things are."""
        if replica.model in self._mine or replica.loaded_at is None:
            return 0.0
        profile = self._profiles.get(replica.model) or Profile(id=replica.model)
        quantum = replica.loaded_at + quantum_secs(replica, profile, self._swapping)
        if replica.busy:
            return quantum
        idle_since = max(replica.loaded_at, replica.last_used or 0.0)
        lingered = idle_since + self._swapping.linger_secs
        least = replica.loaded_at + self._swapping.rules.min_residency_secs
        return min(quantum, max(lingered, least))

    def _place(self, candidates: frozenset[str]) -> Placement:
        """Return how the model fits if only these may leave, each as soon as it is idle."""
        may_leave = candidates - self._others
        replicas = tuple(
            replica
            if replica.model in may_leave or replica.status is not Status.LOADED
            else replace(replica, status=Status.UNLOADING)
            for replica in self._node.replicas
        )
        return place(
            replace(self._node, replicas=replicas),
            self._demand.profile,
            self._profiles,
            replace(self._swapping.rules, min_residency_secs=0.0),
            self._now,
            once_idle=True,
            wanted=self._wanted,
        )


def _promised(node: Node, profile: Profile, fit: Fit) -> Node:
    """Return the node as younger demands may see it, once `fit` has been promised.

    They may use neither memory that is not free yet nor memory that will not stay free.
    """
    share = profile.share_mb
    leaving = [r for r in node.replicas if r.model in fit.victims]
    devices = []
    for device in node.devices:
        room = device.room_mb
        if device.index in fit.devices and room is not None and share is not None:
            back = sum(r.share_mb(None) or 0 for r in leaving if device.index in r.devices)
            room = max(0, min(room, room + back - share))
        devices.append(replace(device, free_mb=room, reserved_mb=0))
    replicas = tuple(
        replace(r, status=Status.UNLOADING) if r.model in fit.victims else r for r in node.replicas
    )
    return replace(node, devices=tuple(devices), replicas=replicas)
