"""The words a neuron speaks: bodies of its control routes, for both ends of the wire.

Reading is lenient, because nodes of other versions and other makes exist: unknown fields are
ignored, absent ones become None or empty, and None always means unknown, never zero. Requests are
strict where a mistake would be silent. Sizes are MiB, times seconds; `last_used` is Unix time.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cortex_router import DEFAULT_PRIORITY

ModelId = Annotated[str, StringConstraints(min_length=1, max_length=256, strip_whitespace=True)]


class _Said(BaseModel):
    """Something a node told us."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Device(_Said):
    """One device of `/discovery`: what it is, which never changes while the node is up.

    A GPU that is split shows as its instances, each `part_of` the GPU with that UUID. `ecc`:
    whether its memory corrects errors.
    """

    index: int
    name: str = ""
    uuid: str | None = None
    kind: str = "cuda"
    vram_total_mb: int | None = None
    compute_capability: str | None = None
    part_of: str | None = None
    ecc: bool | None = None


class Discovery(_Said):
    """`GET /discovery`. `boot_id` changes whenever the daemon starts anew.

    `unusable_harnesses` says of each that was asked for why it cannot be used on this machine.
    """

    hostname: str = "unknown"
    os: str = "unknown"
    kernel: str = "unknown"
    boot_id: str | None = None
    version: str | None = None
    cuda_version: str | None = None
    driver_version: str | None = None
    cuda_unavailable_reason: str | None = None
    devices: tuple[Device, ...] = ()
    harnesses: tuple[str, ...] = ()
    unusable_harnesses: dict[str, str] = Field(default_factory=dict)


class DeviceHealth(_Said):
    """The changing numbers of one device.

    `vram_reserved_mb` is promised to loads in progress, `vram_foreign_mb` held by processes that
    are not this node's. `ecc_errors` counts those that could not be corrected. With a `fault`
    nothing can run on the device, and `vram_free_mb` is 0.
    """

    index: int
    vram_used_mb: int | None = None
    vram_free_mb: int | None = None
    vram_reserved_mb: int | None = None
    vram_foreign_mb: int | None = None
    utilization_pct: float | None = None
    temp_c: float | None = None
    power_w: float | None = None
    ecc_errors: int | None = None
    fault: str | None = None


class FailedActivation(_Said):
    """A default model that did not come up."""

    model_id: str
    error: str = ""


class Activation(_Said):
    """How far the default models are."""

    state: str = "ready"
    pending: tuple[str, ...] = ()
    in_progress: str | None = None
    completed: tuple[str, ...] = ()
    failed: tuple[FailedActivation, ...] = ()


class ModelLoad(_Said):
    """Work on one model. A ceiling of None is unknown; older nodes say 0 for that."""

    id: str
    in_flight: int = 0
    queue_depth: int = 0
    max_in_flight: int | None = None
    max_queue_depth: int | None = None
    rejected: int = 0
    tok_s_prefill: float | None = None
    tok_s_decode: float | None = None


class AttachedServer(_Said):
    """A server that the node uses and did not start.

    States: `unseen up unreachable silent unauthorized unwell`; `detail` says why it is not up.
    """

    name: str
    state: str = "unseen"
    detail: str | None = None
    models: tuple[str, ...] = ()


class Health(_Said):
    """`GET /health`. `load_cycles` counts the loads since the node started."""

    uptime_secs: float = 0.0
    draining: bool = False
    load_cycles: int | None = None
    devices: tuple[DeviceHealth, ...] = ()
    activation: Activation | None = None
    models: tuple[ModelLoad, ...] = ()
    attached: tuple[AttachedServer, ...] = ()


class Limit(_Said):
    """Tokens a model takes and gives."""

    context: int | None = None
    input: int | None = None
    output: int | None = None


class Progress(_Said):
    """How far a load is. `phase`: `queued`, `fetching` or `loading`; bytes or `share` where known.

    `share` is the part of the phase that is done, 0 to 1.
    """

    phase: str
    done_bytes: int | None = None
    total_bytes: int | None = None
    share: float | None = None
    started_at: float | None = None


class Servable(_Said):
    """Whether a resident model can answer now. Absent means it can."""

    ok: bool = True
    reason: str | None = None
    detail: str | None = None


class ModelInfo(_Said):
    """One row of `GET /models`.

    Statuses: `queued loading loaded unloading recovering failed`, and `unloaded` for a model whose
    files are on the node. For those `vram_required_mb` is the node's own estimate, where it has
    one.
    """

    id: str
    harness: str | None = None
    status: str = "loaded"
    devices: tuple[int, ...] = ()
    vram_used_mb: int | None = None
    vram_required_mb: int | None = None
    capabilities: tuple[str, ...] = ()
    limit: Limit | None = None
    in_flight: int = 0
    queue_depth: int = 0
    max_in_flight: int | None = None
    last_used: float | None = None
    loaded_at: float | None = None
    load_secs: float | None = None
    loaded_in_cycle: int | None = None
    progress: Progress | None = None
    servable: Servable = Servable()
    error: str | None = None


class Waiting(BaseModel):
    """Who waits for a load: how many requests, and for how long the oldest has.

    `by` names the gateway that they wait in; without it that is whoever has the caller's address.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(ge=0)
    oldest_secs: float = Field(ge=0)
    by: str | None = Field(default=None, max_length=128)


class Residency(BaseModel):
    """Who may displace a model here: its class, whether this is its home, and whom it avoids."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    priority: int = Field(default=DEFAULT_PRIORITY, ge=0)
    pinned: bool = False
    apart_from: tuple[ModelId, ...] = ()


class LoadRequest(BaseModel):
    """`POST /models/load`. With `wait` the answer comes when the model is up, else at once.

    With `waiting` it is an intent: it takes its turn, and whoever is of no higher class gives way
    in time. It lapses unless it is repeated, at once when `waiting.count` is 0. Without, it is done
    now or refused, and only models named in `evict` may leave for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_id: ModelId
    harness: str | None = None
    source: str | None = None
    quant: str | None = None
    tensor_parallel: int | None = Field(default=None, ge=1)
    devices: tuple[int, ...] | None = None
    evict: tuple[ModelId, ...] = ()
    waiting: Waiting | None = None
    residency: Residency = Residency()
    wait: bool = True
    vram_mb: int | None = Field(default=None, gt=0)
    keep_alive_secs: float | None = Field(default=None, gt=0)
    capabilities: tuple[str, ...] = ()
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def withdrawn(self) -> bool:
        """It was an intent, and nobody waits any more."""
        return self.waiting is not None and self.waiting.count == 0


class LoadAnswer(_Said):
    """Answer to a load: `loaded` (200), `loading` or `queued` (202).

    `position` counts from 1; `eta_secs` is when its turn comes at the latest, where that is known.
    """

    status: Literal["loaded", "loading", "queued"] = "loaded"
    progress: Progress | None = None
    position: int | None = None
    eta_secs: float | None = None


class UnloadRequest(BaseModel):
    """`POST /models/unload`. Requests in flight get `drain_secs` to end before they are cut."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_id: ModelId
    drain_secs: float = Field(default=30.0, ge=0, le=3600)


class Snapshot(_Said):
    """First event of `/events`, and the answer to a resume that came too late: everything."""

    boot_id: str
    health: Health
    models: tuple[ModelInfo, ...]


class ModelRemoved(_Said):
    """Event: the node no longer lists this model."""

    id: str
