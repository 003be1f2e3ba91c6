"""The gateway's picture of the fleet, kept by whoever observes nodes, read by everybody else.

Nothing here could not be rebuilt from one round of observation. `view()` is what decisions look
at: what nodes said, plus the requests this gateway sent a moment ago and no node has reported yet,
so that a burst is spread although all of it arrives between two events.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cortex_core.principals import PRINCIPAL_HEADER
from cortex_core.settings import Catalogue, ModelEntry, NeuronEntry
from cortex_core.wire import Discovery, Health, ModelInfo, Progress
from cortex_router import (
    CatalogueChanged,
    Device,
    FleetView,
    Node,
    NodeForgotten,
    NodeLost,
    NodeObserved,
    Profile,
    Replica,
    RequestEnded,
    RequestSent,
    Status,
    apply,
)
from cortex_uplink import Prepared, Uplink

#: Of one node, before they are forgotten.
_MOST_PREPARED = 1024


@dataclass(slots=True, kw_only=True)
class NodeState:
    """What one node last said, word for word."""

    entry: NeuronEntry
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    healthy: bool = False
    misses: int = 0
    error: str | None = "not seen yet"
    last_seen: float | None = None
    discovery: Discovery | None = None
    health: Health = field(default_factory=Health)
    models: dict[str, ModelInfo] = field(default_factory=dict)
    _requests: dict[tuple[str, str], Prepared] = field(default_factory=dict, repr=False)

    def means(self, entry: NeuronEntry, headers: Mapping[str, str]) -> None:
        """Take another entry and other headers."""
        self.entry, self.headers = entry, headers
        self._requests.clear()

    def request(self, uplink: Uplink, path: str, principal: str) -> Prepared:
        """Return what all requests for `path` by one principal have in common."""
        if (known := self._requests.get((path, principal))) is not None:
            return known
        if len(self._requests) >= _MOST_PREPARED:
            self._requests.clear()
        headers = {**self.headers, "content-type": "application/json", PRINCIPAL_HEADER: principal}
        made = uplink.prepare(f"{self.entry.endpoint}{path}", headers)
        self._requests[path, principal] = made
        return made


class Fleet:
    """Every node's last word, and the view made of them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._view = FleetView()
        self._nodes: dict[str, NodeState] = {}
        self._learned_mb: dict[str, int] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._looked = asyncio.Event()
        self._listeners: list[Callable[[NodeState | None], None]] = []
        self.catalogue = catalogue
        self.set_catalogue(catalogue)

    @property
    def nodes(self) -> dict[str, NodeState]:
        """Every configured node by name."""
        return self._nodes

    def on_change(self, listener: Callable[[NodeState | None], None]) -> None:
        """Call `listener` with the node that changed, None for anything else."""
        self._listeners.append(listener)

    def set_catalogue(self, catalogue: Catalogue) -> None:
        """Use another catalogue from now on."""
        self.catalogue = catalogue
        self._apply_catalogue()
        self._tell(None)

    def add(self, entry: NeuronEntry, headers: Mapping[str, str]) -> NodeState:
        """Enter a configured node, or its new entry; unhealthy until it is seen.

        `headers` go with every request to it.
        """
        state = self._nodes.get(entry.name)
        if state is None or state.entry.endpoint != entry.endpoint:
            state = self._nodes[entry.name] = NodeState(entry=entry)
        state.means(entry, headers)
        self.observed(state)
        return state

    def remove(self, name: str) -> None:
        """Forget a node that left the configuration."""
        state = self._nodes.pop(name)
        self._view = apply(self._view, NodeForgotten(name))
        self._tell(state)

    def observed(self, state: NodeState) -> None:
        """Take in what `state` now holds."""
        if self._nodes.get(state.entry.name) is state:
            event = NodeObserved(as_node(state)) if state.healthy else NodeLost(state.entry.name)
            if self._view.node(state.entry.name) is None:
                event = NodeObserved(as_node(state))
            self._view = apply(self._view, event)
            if all(one.healthy or one.misses for one in self._nodes.values()):
                self._looked.set()
            self._tell(state)

    def learn_size(self, model: str, size_mb: int) -> None:
        """Remember what a node said a model needs; it goes before the operator's figure."""
        self._learned_mb[model] = size_mb
        self._apply_catalogue()

    def view(self) -> FleetView:
        """Return the fleet for a decision taken now."""
        return self._view

    def sent(self, node: str, model: str, *, session: str | None = None, tokens: int = 0) -> None:
        """Count a request of ours to a replica; `ended` must follow."""
        self._view = apply(
            self._view,
            RequestSent(node=node, model=model, at=now(), session=session, tokens=tokens),
        )

    def ended(self, node: str, model: str, *, failed: bool | None) -> None:
        """Count its end. `failed`: by the replica's own fault; None when nobody can tell."""
        self._view = apply(
            self._view, RequestEnded(node=node, model=model, at=now(), failed=failed)
        )
        self._wake()

    async def changed(self, timeout_secs: float) -> bool:
        """Return True after the next change, False when none came in time."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_secs):
                await waiter
        except TimeoutError:
            return False
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return True

    async def first_look(self, timeout_secs: float) -> None:
        """Wait until every node was asked once: a new gateway refuses nobody before it looked."""
        if self._looked.is_set():
            return
        try:
            async with asyncio.timeout(timeout_secs):
                await self._looked.wait()
        except TimeoutError:
            self._looked.set()

    def _apply_catalogue(self) -> None:
        profiles = {e.id: as_profile(e, self._learned_mb.get(e.id)) for e in self.catalogue.models}
        self._view = apply(self._view, CatalogueChanged(profiles, self.catalogue.aliases))

    def _wake(self) -> None:
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _tell(self, state: NodeState | None) -> None:
        for listener in self._listeners:
            listener(state)
        self._wake()


def as_profile(entry: ModelEntry, learned_mb: int | None) -> Profile:
    """Return the catalogue entry as the router knows it."""
    return Profile(
        id=entry.id,
        harness=entry.harness,
        size_mb=learned_mb if learned_mb is not None else entry.vram_mb,
        min_devices=entry.min_devices,
        min_device_mb=entry.min_device_vram_mb,
        pinned_on=entry.pinned_on,
        preferred_on=entry.preferred_on,
        excluded_from=entry.excluded_from,
        apart_from=entry.apart_from,
        priority=entry.residency_priority,
    )


def as_node(state: NodeState) -> Node:
    """Return a node's last word as the router knows it. Older nodes say less; that is unknown."""
    discovery = state.discovery
    telemetry = {device.index: device for device in state.health.devices}
    loads = {load.id: load for load in state.health.models}
    devices = tuple(
        Device(
            index=d.index,
            total_mb=d.vram_total_mb,
            free_mb=seen.vram_free_mb if (seen := telemetry.get(d.index)) else None,
            reserved_mb=(seen.vram_reserved_mb or 0) if seen else 0,
        )
        for d in (discovery.devices if discovery else ())
    )
    replicas = []
    for row in state.models.values():
        load = loads.get(row.id)
        ceiling = row.max_in_flight or (load.max_in_flight if load else None)
        replicas.append(
            Replica(
                model=row.id,
                status=Status.parse("loading" if row.status == "reloading" else row.status),
                devices=row.devices,
                used_mb=row.vram_used_mb,
                required_mb=row.vram_required_mb,
                in_flight=max(row.in_flight, load.in_flight if load else 0),
                queued=max(row.queue_depth, load.queue_depth if load else 0),
                max_in_flight=ceiling or None,
                last_used=row.last_used,
                loaded_at=row.loaded_at,
                load_secs=row.load_secs,
                eta_secs=_eta_secs(row.progress, now()),
                loaded_in_cycle=row.loaded_in_cycle,
                tok_s_prefill=load.tok_s_prefill if load else None,
                tok_s_decode=load.tok_s_decode if load else None,
                servable=row.servable.ok,
            )
        )
    return Node(
        name=state.entry.name,
        healthy=state.healthy,
        draining=state.health.draining,
        harnesses=discovery.harnesses or None if discovery else None,
        load_cycles=state.health.load_cycles,
        devices=devices,
        replicas=tuple(replicas),
    )


def _eta_secs(progress: Progress | None, at: float) -> float | None:
    """Return how long a load takes yet, if it goes on as it has; None where nobody can tell."""
    if progress is None or progress.started_at is None or not progress.total_bytes:
        return None
    done = progress.done_bytes or 0
    elapsed = at - progress.started_at
    if done <= 0 or elapsed <= 0:
        return None
    return max(0.0, elapsed * (progress.total_bytes - done) / done)


def now() -> float:
    """Return Unix time, the clock that decisions are given."""
    return time.time()
