"""Whose turn it is on one node, when more models are wanted than fit.

The one who owns a node's models calls `next_swaps` after every change and carries its steps out; it
keeps nothing else in mind. Demands are looked at in order of their oldest request:

1. one that fits beside everything older demands have been promised starts at once;
2. one that fits once models leave that have served their time starts when nobody uses them. A
   model has served its time when it has been there `amortise` times as long as its load took (its
   quantum), or when nobody has used it for `linger_secs`;
3. those of them in use are closed, unless waiting for `linger_secs` at most makes room without:
   they take no new requests, end those they have, and leave; should nobody count on their place
   any more, they are opened again;
4. until enough have served their time, the demand holds. What it is waiting for stays its own:
   younger demands get only what it leaves over;
5. one that could not even have its turn if everybody who may leave did holds nobody up.

So what is resident is served in batches (A B A A C becomes A A A B C), no model leaves while it is
used, and two models cannot evict each other request by request: a model that is in use stays at
least `amortise` times as long as its load took.

The bound. Q is the longest quantum; D the longest that a closed model takes to end the requests it
has; U the longest unload; L the longest load; n the number of other models with an older demand (a
closed model's own demand is younger than the one it makes way for). Then a demand that can have its
turn here is loaded within (n + 1) (Q + D + 2 (U + L)), as long as loads succeed. Consider the
oldest. From now on nobody else is promised anything that it plans on, so what can still come into
its way is on its way already, and is loaded within U + L. Within Q after that, everybody in its way
has served its time and is closed; within D they are idle, and within U + L they are gone and it is
loaded. Then the next is the oldest: it waits for one such turn for every older demand, and for its
own. Younger ones never get before it, since a demand that waits only gets older.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

from cortex_router.eviction import Victim
from cortex_router.lifecycle import RESIDENT, Status
from cortex_router.nodes import Device, Node, Profile, Replica
from cortex_router.placement import Fit, NoFit, Placement, Rules, place


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Requests that wait for a model: how many, and since when the oldest does (Unix seconds)."""

    profile: Profile
    count: int
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapping:
    """The operator's choices.

    Measured on three equal models over memory for two, loads of 8 s. With a request every 1.5 s,
    5 s of lingering make 104 loads in a quarter of an hour, 2 s make 113; with one every 5 s as
    many, but a p95 wait of 17.6 s against 10.8 s. Staying twice as long makes 72 loads of the 104,
    and a p95 wait of 25.5 s instead of 19.2 s.
    """

    rules: Rules = field(default_factory=Rules)
    amortise: float = 1.0
    linger_secs: float = 2.0


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
class Reopen:
    """Let a closed model take requests again: nobody counts on its place any more."""

    model: str


@dataclass(frozen=True, slots=True)
class Hold:
    """The demand waits; look again at `until` at the latest, None: at the next event."""

    model: str
    until: float | None
    reason: str


SwapStep: TypeAlias = Start | Close | Reopen | Hold
_NOBODY: frozenset[str] = frozenset()
_NONE_CLOSED: Mapping[str, str] = MappingProxyType({})
#: On the way in: a model that will be there, and then serves its time like any other.
_COMING = frozenset({Status.LOADING, Status.RECOVERING})


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
    """Return what to do now, in order.

    `closed` maps models that were told to close to whom they make way. `wanted` tells how often a
    model was asked for lately, per second.
    """
    steps: list[SwapStep] = []
    view = _View(node, frozenset(), frozenset(closed))
    for demand in _in_order(demands, closed):
        if view.is_needlessly_closed(model := demand.profile.id):
            view = replace(view, spoken_for=view.spoken_for | {model})
            continue  # it is opened again, and serves those who wait for it
        turn = _Turn(view, demand, profiles, swapping, now, wanted)
        taken, fit = turn.decide()
        steps.extend(taken)
        if fit is not None:
            view = view.promised(demand.profile, fit)
    needless = [
        Reopen(replica.model)
        for replica in sorted(view.node.replicas, key=lambda one: one.model)
        if replica.status is Status.LOADED and replica.model in closed
    ]
    return (*needless, *steps)


def quantum_secs(replica: Replica, profile: Profile, swapping: Swapping) -> float:
    """Return for how long a model stays once it is loaded, if somebody uses it."""
    return max(
        swapping.rules.min_residency_secs, swapping.amortise * replica.load_secs_at(profile.size_mb)
    )


def wait_bound_secs(
    *, older: int, quantum_secs: float, drain_secs: float, unload_secs: float, load_secs: float
) -> float:
    """Return the longest time until a demand behind `older` others is loaded; see above."""
    return (older + 1) * (quantum_secs + drain_secs + 2 * (unload_secs + load_secs))


def _in_order(demands: Sequence[Demand], closed: Mapping[str, str]) -> list[Demand]:
    """Return the oldest first; one whose model was told to make way comes after the other.

    Else the two would wait for each other, should the clock or a late word make it the older one.
    """
    keys = {demand.profile.id: (demand.since, demand.profile.id, False) for demand in demands}

    def key(demand: Demand) -> tuple[float, str, bool]:
        model = demand.profile.id
        since, other, _ = keys.get(closed.get(model, ""), (demand.since, "", False))
        return max(keys[model], (since, other, True))

    return sorted(demands, key=key)


@dataclass(frozen=True, slots=True)
class _View:
    """A node as one demand may see it: `spoken_for` are replicas that older ones count on."""

    node: Node
    spoken_for: frozenset[str]
    closed: frozenset[str]

    def is_needlessly_closed(self, model: str) -> bool:
        """Tell whether a closed model is there and nobody counts on its place."""
        held = self.node.holds(model)
        loaded = held is not None and held.status is Status.LOADED
        return loaded and model in self.closed and model not in self.spoken_for

    def when_gone(self) -> Node:
        """Return the node once those that are leaving have left."""
        return self._without(
            [
                replica
                for replica in self.node.replicas
                if replica.status is Status.UNLOADING and replica.model not in self.spoken_for
            ]
        )

    def _without(self, gone: Sequence[Replica]) -> Node:
        if not gone:
            return self.node
        stay = tuple(replica for replica in self.node.replicas if replica not in gone)
        devices = tuple(_with_back(device, gone, stay) for device in self.node.devices)
        return replace(self.node, devices=devices, replicas=stay)

    def promised(self, profile: Profile, fit: Fit) -> "_View":
        """Return the view of younger demands, once `fit` has been promised.

        They may use neither memory that is not free yet nor memory that will not stay free.
        """
        share = profile.share_mb or 0
        leaving = [replica for replica in self.node.replicas if replica.model in fit.victims]
        later = {device.index: device.room_mb for device in self.when_gone().devices}
        devices, waits = [], False
        for device in self.node.devices:
            room, then = device.room_mb, later[device.index]
            if device.index in fit.devices and room is not None and then is not None:
                back = _held_mb(device, leaving)
                # Unless it has to wait for those that are leaving, it may start before they left.
                waits = waits or room + back < share
                left = (then if room + back < share else room) + back - share
                devices.append(replace(device, free_mb=max(0, min(room, left)), reserved_mb=0))
            else:
                devices.append(device)
        waited_for = [
            replica.model
            for replica in self.node.replicas
            if waits
            and replica.status is Status.UNLOADING
            and not {*replica.devices}.isdisjoint(fit.devices)
        ]
        replicas = [
            replace(replica, status=Status.UNLOADING) if replica.model in fit.victims else replica
            for replica in self.node.replicas
            if replica.model != profile.id
        ]
        comer = Replica(
            model=profile.id,
            status=Status.LOADING,
            devices=fit.devices,
            used_mb=share * len(fit.devices),
        )
        return _View(
            replace(self.node, devices=tuple(devices), replicas=(*replicas, comer)),
            self.spoken_for.union(fit.victims, waited_for, (profile.id,)),
            self.closed,
        )


def _with_back(device: Device, gone: Sequence[Replica], stay: Sequence[Replica]) -> Device:
    """Return the device once `gone` have given back what they hold and nobody was promised."""
    if device.free_mb is None:
        return device
    room = device.free_mb - device.reserved_mb + _held_mb(device, gone)
    if device.total_mb is not None:
        room = min(room, device.total_mb - _held_mb(device, stay))
    return replace(device, free_mb=max(0, room), reserved_mb=0)


def _held_mb(device: Device, replicas: Sequence[Replica]) -> int:
    return sum(
        replica.share_mb(None) or 0
        for replica in replicas
        if replica.status in RESIDENT and device.index in replica.devices
    )


class _Turn:
    """One demand, and the node as it finds it."""

    def __init__(
        self,
        view: _View,
        demand: Demand,
        profiles: Mapping[str, Profile],
        swapping: Swapping,
        now: float,
        wanted: Callable[[str], float | None] | None,
    ) -> None:
        self._view, self._profile, self._now = view, demand.profile, now
        self._profiles, self._swapping, self._wanted = profiles, swapping, wanted
        # How long it stays is reckoned here, where it can be told until when.
        self._rules = replace(swapping.rules, min_residency_secs=0.0)
        self._settled = view.when_gone()
        mine = [r for r in view.node.replicas if r.model not in view.spoken_for]
        self._coming = frozenset(r.model for r in mine if r.status in _COMING)
        here = [r for r in mine if r.status is Status.LOADED]
        self._served_at = {replica.model: self._time_served(replica) for replica in here}
        self._idle = frozenset(replica.model for replica in here if not replica.busy)

    def decide(self) -> tuple[list[SwapStep], Fit | None]:
        """Return the steps for this demand, and the place that is its own from now on."""
        model = self._profile.id
        held = self._view.node.holds(model)
        if held is None or held.status not in RESIDENT:
            return self._place_now()
        if held.status is Status.UNLOADING or model in self._view.closed:
            # It comes back as soon as it has left, so its next place is its own from now on.
            fit = self._in_the_end()
            return [Hold(model, None, "leaving")], fit if isinstance(fit, Fit) else None
        return [Hold(model, None, held.status.value)], None

    def _place_now(self) -> tuple[list[SwapStep], Fit | None]:
        model, now, settled = self._profile.id, self._view.node, self._settled
        served = self._served_by(self._now)
        if isinstance(self._place(served, settled), NoFit):
            return self._wait_for_time()
        if isinstance(fit := self._place(_NOBODY, now), Fit):
            return [Start(model, fit.devices)], fit
        if settled is not now and isinstance(fit := self._place(_NOBODY, settled), Fit):
            return [Hold(model, None, "unloading")], fit
        idle = served & self._idle
        if isinstance(fit := self._place(idle, now), Fit):
            # One that came after `now`, as the clock was set back, is in `once_idle`.
            return [Start(model, fit.devices, (*fit.evict, *fit.once_idle))], fit
        closed = self._view.closed & served
        lingering = self._idle & self._served_by(self._now + self._swapping.linger_secs)
        for candidates in (closed, closed | idle, closed | lingering, served):
            fit = self._place(candidates, settled)
            if isinstance(fit, Fit) and served.issuperset(fit.victims):
                closing = [Close(one, model) for one in fit.victims if one not in closed]
                return [*closing, Hold(model, None, "draining")], fit
            if isinstance(fit, Fit):
                until = max(self._served_at[one] for one in fit.victims)
                return [Hold(model, until, "serving_its_time")], fit
        raise AssertionError("unreachable: the last of them was found to do")

    def _wait_for_time(self) -> tuple[list[SwapStep], Fit | None]:
        """Return when enough residents will have served their time, or that they never will."""
        model = self._profile.id
        last = self._in_the_end()
        if isinstance(last, NoFit):
            return [Hold(model, None, last.reason)], None
        for at in sorted({at for at in self._served_at.values() if at > self._now}):
            if isinstance(fit := self._place(self._served_by(at), self._settled), Fit):
                return [Hold(model, at, "serving_its_time")], fit
        return [Hold(model, None, "loading")], last

    def _in_the_end(self) -> Placement:
        """Return how the model fits once everybody who is here or coming has served its time."""
        here = self._place(frozenset(self._served_at), self._settled)
        if isinstance(here, Fit) or not self._coming:
            return here
        come = tuple(
            replace(replica, status=Status.LOADED) if replica.model in self._coming else replica
            for replica in self._settled.replicas
        )
        return self._place(
            frozenset(self._served_at) | self._coming, replace(self._settled, replicas=come)
        )

    def _served_by(self, at: float) -> frozenset[str]:
        return frozenset(model for model, served in self._served_at.items() if served <= at)

    def _time_served(self, replica: Replica) -> float:
        """Return when a resident has served its time, as things are."""
        if replica.model in self._view.closed or replica.loaded_at is None:
            return 0.0
        if replica.loaded_at > self._now:
            return 0.0  # the clock was set back: how long it has been there cannot be told
        profile = self._profiles.get(replica.model) or Profile(id=replica.model)
        quantum = replica.loaded_at + quantum_secs(replica, profile, self._swapping)
        if replica.busy:
            return quantum
        idle_since = max(replica.loaded_at, replica.last_used or 0.0)
        lingered = idle_since + self._swapping.linger_secs
        least = replica.loaded_at + self._swapping.rules.min_residency_secs
        return min(quantum, max(lingered, least))

    def _place(self, may_leave: frozenset[str], node: Node) -> Placement:
        """Return how the model fits on `node` if only these leave, each as soon as it is idle."""
        replicas = tuple(
            replace(replica, status=Status.UNLOADING)
            if replica.status is Status.LOADED and replica.model not in may_leave
            else replica
            for replica in node.replicas
        )
        return place(
            replace(node, replicas=replicas),
            self._profile,
            self._profiles,
            self._rules,
            self._now,
            once_idle=True,
            wanted=self._wanted,
        )
