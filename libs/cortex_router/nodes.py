"""The nouns of a fleet: devices, replicas, nodes and the profiles of models. All frozen.

None means unknown, never zero. Sizes are MiB, times are Unix seconds, speeds tokens per second.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from cortex_router.lifecycle import Status

DEFAULT_PRIORITY = 100
PINNED_PRIORITY = 1000
#: How a load's length is guessed from a size, until one has been seen: seconds, and MiB a second.
LOAD_START_SECS = 2.0
LOAD_MB_PER_SEC = 1000.0
#: More than any device has.
_ANYTHING_MB = 1 << 40
#: Assumed until a replica has told what it does.
DEFAULT_DECODE_TOK_S = 30.0
DEFAULT_PREFILL_TOK_S = 1000.0


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
    """One model on one node. `required_mb` is the node's own estimate for a model not loaded.

    `eta_secs` is how long until it is up, `load_secs` what it took to load,
    `loaded_in_cycle` the count of the node's loads with it.
    """

    model: str
    status: Status
    devices: tuple[int, ...] = ()
    used_mb: int | None = None
    required_mb: int | None = None
    in_flight: int = 0
    queued: int = 0
    max_in_flight: int | None = None
    last_used: float | None = None
    loaded_at: float | None = None
    load_secs: float | None = None
    loaded_in_cycle: int | None = None
    eta_secs: float | None = None
    tok_s_prefill: float | None = None
    tok_s_decode: float | None = None
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
    def idle_since(self) -> float:
        """When it was last used, or loaded if that was later; -inf when it did not say."""
        return max(
            float("-inf") if self.last_used is None else self.last_used,
            float("-inf") if self.loaded_at is None else self.loaded_at,
        )

    @property
    def seats(self) -> int:
        """How many it serves at once; one when it did not say."""
        return self.max_in_flight or 1

    @property
    def decode_tok_s(self) -> float:
        """How fast it writes, assumed when it did not say."""
        return self.tok_s_decode or DEFAULT_DECODE_TOK_S

    @property
    def prefill_tok_s(self) -> float:
        """How fast it reads, assumed when it did not say."""
        return self.tok_s_prefill or DEFAULT_PREFILL_TOK_S

    def load_secs_at(self, size_mb: int | None) -> float:
        """How long it takes to load: as seen, else guessed from its size; MiB, None: unknown."""
        if self.load_secs is not None:
            return self.load_secs
        return LOAD_START_SECS + (self.used_mb or size_mb or 0) / LOAD_MB_PER_SEC

    def share_mb(self, size_mb: int | None) -> int | None:
        """What the model holds on each of its devices, from its real use, else from `size_mb`."""
        whole = self.used_mb if self.used_mb is not None else size_mb
        return None if whole is None or not self.devices else -(-whole // len(self.devices))


class Glance(NamedTuple):
    """Bounds of some loaded replicas: none is idle since before, none loads faster."""

    idle_since: float
    load_secs: float


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine as last seen. What is derived from it is worked out once, when first needed.

    `load_cycles` is how many loads it has carried out since it started.
    """

    name: str
    healthy: bool = False
    draining: bool = False
    harnesses: tuple[str, ...] | None = None
    load_cycles: int | None = None
    devices: tuple[Device, ...] = ()
    replicas: tuple[Replica, ...] = ()

    @cached_property
    def by_model(self) -> dict[str, Replica]:
        """The replicas by model; the first, should a node name one twice."""
        return {replica.model: replica for replica in reversed(self.replicas)}

    @cached_property
    def rooms_mb(self) -> tuple[int, ...]:
        """The known rooms of its devices, the largest first."""
        return tuple(
            sorted((r for d in self.devices if (r := d.room_mb) is not None), reverse=True)
        )

    @cached_property
    def glance(self) -> Glance | None:
        """What is known of its loaded replicas together; None without one."""
        loaded = [one for one in self.replicas if one.status is Status.LOADED]
        if not loaded:
            return None
        return Glance(
            idle_since=min(one.idle_since for one in loaded),
            load_secs=min(one.load_secs_at(None) for one in loaded),
        )

    @cached_property
    def relieved_mb(self) -> tuple[tuple[int, ...], ...]:
        """The known rooms, the largest first, once 0, 1, 2 ... replicas have left each device.

        The largest leave first, and one of unknown size might give back anything: no plan frees
        more with as many.
        """
        held: dict[int, list[int]] = {}
        for one in self.replicas:
            if one.status is Status.LOADED:
                share = one.share_mb(None)
                for index in one.devices:
                    held.setdefault(index, []).append(_ANYTHING_MB if share is None else share)
        for shares in held.values():
            shares.sort(reverse=True)
        known = [(d.room_mb, held.get(d.index, [])) for d in self.devices]
        return tuple(
            tuple(sorted((r + sum(mb[:count]) for r, mb in known if r is not None), reverse=True))
            for count in range(1 + max(map(len, held.values()), default=0))
        )

    @property
    def usable(self) -> bool:
        """Seen, and taking requests."""
        return self.healthy and not self.draining

    def holds(self, model: str) -> Replica | None:
        """Return the replica of `model` here, whatever its status."""
        return self.by_model.get(model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One model of the catalogue: what it needs and where it may live.

    `size_mb` is the whole model; each of its `min_devices` devices needs an even share. `pinned_on`
    are the nodes it belongs to and never leaves for another; `only_on` those that have its files:
    either one, when not empty, keeps it off every other node. `preferred_on` are tried first,
    `excluded_from` never. A device never holds it together with one of `apart_from`.
    """

    id: str
    harness: str | None = None
    size_mb: int | None = None
    min_devices: int = 1
    min_device_mb: int | None = None
    pinned_on: tuple[str, ...] = ()
    only_on: tuple[str, ...] = ()
    preferred_on: tuple[str, ...] = ()
    excluded_from: tuple[str, ...] = ()
    apart_from: tuple[str, ...] = ()
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
