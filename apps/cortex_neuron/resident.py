"""One model on this node: what was asked for, how far it is, who is using it."""

import asyncio
from dataclasses import dataclass, field

from cortex_core.errors import ApiError
from cortex_core.wire import Limit, LoadRequest, ModelInfo, Progress, Servable
from cortex_neuron.admission import Admission
from cortex_neuron.harness import Engine
from cortex_router import Status


@dataclass(slots=True, kw_only=True)
class Resident:
    """The state of one model from the moment its load is asked for until it has gone.

    `decided` is done when memory is promised or refused, `arrived` when it serves or failed, `gone`
    when its process has ended and its memory is back.
    """

    request: LoadRequest
    harness: str
    admission: Admission
    status: Status = Status.QUEUED
    devices: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    context: int | None = None
    required_mb: int | None = None
    used_mb: int | None = None
    loaded_at: float = 0.0
    last_used: float | None = None
    progress: Progress | None = None
    failure: ApiError | None = None
    engine: Engine | None = None
    task: asyncio.Task[None] | None = None
    crashes: list[float] = field(default_factory=list)
    tok_s_prefill: float | None = None
    tok_s_decode: float | None = None
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """The model id."""
        return self.request.model_id

    def overstays(self, now: float) -> bool:
        """Tell whether it has been idle for longer than whoever loaded it wanted to keep it."""
        keep = self.request.keep_alive_secs
        if keep is None or self.status is not Status.LOADED:
            return False
        busy = self.admission.in_flight + self.admission.queue_depth > 0
        return not busy and now - max(self.loaded_at, self.last_used or 0.0) >= keep

    def row(self) -> ModelInfo:
        """Return the row of `GET /models`."""
        recovering = self.status is Status.RECOVERING
        return ModelInfo(
            id=self.id,
            harness=self.harness,
            status=self.status.value,
            devices=self.devices,
            vram_used_mb=self.used_mb,
            vram_required_mb=self.required_mb,
            capabilities=self.capabilities,
            limit=None if self.context is None else Limit(context=self.context),
            in_flight=self.admission.in_flight,
            queue_depth=self.admission.queue_depth,
            max_in_flight=self.admission.max_in_flight,
            last_used=self.last_used,
            progress=self.progress,
            servable=Servable(ok=False, reason="recovering") if recovering else Servable(),
            error=None if self.failure is None else self.failure.message,
        )
