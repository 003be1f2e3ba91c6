"""The fleet as one immutable picture, and the only way to make the next one: `apply`.

Nothing here is a clock or a connection: whoever observes nodes turns what they said into events.
None means unknown, never zero. Sizes are MiB, `last_used` is Unix time in seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias

DEFAULT_PRIORITY = 100
PINNED_PRIORITY = 1000


class Status(StrEnum):
    """The life of a model on a node. UNKNOWN is whatever we do not understand: never routable."""

    UNLOADED = "unloaded"
    QUEUED = "queued"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    RECOVERING = "recovering"
    FAILED = "failed"
    UNKNOWN = "unknown"

    @classmethod
    def parse(cls, text: str) -> "Status":
        """Return the status named `text`, UNKNOWN when there is none."""
        return cls._value2member_map_.get(text, cls.UNKNOWN)  # type: ignore[return-value]


#: The replica is on its way or will be back: hold the request, never start a second copy.
ARRIVING = frozenset({Status.QUEUED, Status.LOADING, Status.RECOVERING, Status.UNLOADING})
#: The replica holds device memory (a failed one holds none).
RESIDENT = frozenset(
    {Status.QUEUED, Status.LOADING, Status.LOADED, Status.UNLOADING, Status.RECOVERING}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device: all it has, what is free now, and what loads in progress were promised."""

    index: int
    total_mb: int | None = None
    free_mb: int | None = None
    reserved_mb: int = 0

    @property
    def room_mb(self) -> int | None:
        """Free and not promised to anybody; None when the node did not say."""
        return None if self.free_mb is None else max(0, self.free_mb - self.reserved_mb)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One model on one node. `required_mb` is the node's own estimate for a model not loaded."""

    model: str
    status: Status
    devices: tuple[int, ...] = ()
    used_mb: int | None = None
    required_mb: int | None = None
    in_flight: int = 0
    queued: int = 0
    max_in_flight: int | None = None
    last_used: float | None = None
    servable: bool = True

    @property
    def ready(self) -> bool:
        """Loaded, and able to answer."""
        return self.status is Status.LOADED and self.servable

    @property
    def busy(self) -> bool:
        """Somebody is being served or waits."""
        return self.in_flight + self.queued > 0

    @property
    def pressure(self) -> float:
        """In flight and queued against its own ceiling; 1.0 means every seat is taken."""
        return (self.in_flight + self.queued) / (self.max_in_flight or 1)

    def share_mb(self, size_mb: int | None) -> int | None:
        """What the model holds on each of its devices, from its real use, else from `size_mb`."""
        whole = self.used_mb if self.used_mb is not None else size_mb
        return None if whole is None or not self.devices else -(-whole // len(self.devices))


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine as last seen."""

    name: str
    healthy: bool = False
    draining: bool = False
    harnesses: tuple[str, ...] | None = None
    devices: tuple[Device, ...] = ()
    replicas: tuple[Replica, ...] = ()

    def holds(self, model: str) -> Replica | None:
        """Return the replica of `model` here, whatever its status."""
        return next((one for one in self.replicas if one.model == model), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One model of the catalogue: what it needs and where it may live.

    `size_mb` is the whole model; each of its `min_devices` devices needs an even share. `pinned_on`
    are the nodes it belongs to and never leaves for another; `only_on` those that have its files.
    Either one, when not empty, keeps it off every other node.
    """

    id: str
    harness: str | None = None
    size_mb: int | None = None
    min_devices: int = 1
    min_device_mb: int | None = None
    pinned_on: tuple[str, ...] = ()
    only_on: tuple[str, ...] = ()
    priority: int | None = None

    @property
    def share_mb(self) -> int | None:
        """What each device must hold; None when the size is unknown."""
        return None if self.size_mb is None else -(-self.size_mb // self.min_devices)

    @property
    def residency_class(self) -> int:
        """Its rank when memory is short; a pinned model without a rank of its own is protected."""
        if self.priority is not None:
            return self.priority
        return PINNED_PRIORITY if self.pinned_on else DEFAULT_PRIORITY


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """Everything a decision may look at."""

    nodes: tuple[Node, ...] = ()
    profiles: Mapping[str, Profile] = field(default_factory=lambda: MappingProxyType({}))
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def resolve(self, name: str) -> str:
        """Return the model that `name` stands for: an alias's target, else `name` itself."""
        return self.aliases.get(name, name)

    def node(self, name: str) -> Node | None:
        """Return the node called `name`."""
        return next((one for one in self.nodes if one.name == name), None)

    def profile(self, model: str) -> Profile | None:
        """Return the catalogue's profile, else one for a model that some node has files of."""
        if (listed := self.profiles.get(model)) is not None:
            return listed
        held = [(n.name, r) for n in self.nodes if (r := n.holds(model)) is not None]
        if not held:
            return None
        sizes = [r.required_mb for _, r in held if r.required_mb is not None]
        return Profile(
            id=model,
            size_mb=max(sizes, default=None),
            only_on=tuple(sorted(name for name, _ in held)),
        )


@dataclass(frozen=True, slots=True)
class NodeObserved:
    """A node said how it is."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node missed too many polls. What it held stays known, so that requests wait for it."""

    name: str


@dataclass(frozen=True, slots=True)
class NodeForgotten:
    """A node left the configuration."""

    name: str


@dataclass(frozen=True, slots=True)
class CatalogueChanged:
    """The operator's catalogue was read again."""

    profiles: Mapping[str, Profile]
    aliases: Mapping[str, str]


Event: TypeAlias = NodeObserved | NodeLost | NodeForgotten | CatalogueChanged


def apply(view: FleetView, event: Event) -> FleetView:
    """Return the view after `event`. Nodes stay sorted by name."""
    match event:
        case NodeObserved(node):
            others = [one for one in view.nodes if one.name != node.name]
            nodes = tuple(sorted([*others, node], key=lambda one: one.name))
            return replace(view, nodes=nodes)
        case NodeLost(name):
            return replace(
                view,
                nodes=tuple(
                    replace(one, healthy=False) if one.name == name else one for one in view.nodes
                ),
            )
        case NodeForgotten(name):
            return replace(view, nodes=tuple(one for one in view.nodes if one.name != name))
        case CatalogueChanged(profiles, aliases):
            return replace(
                view,
                profiles=MappingProxyType(dict(profiles)),
                aliases=MappingProxyType(dict(aliases)),
            )
