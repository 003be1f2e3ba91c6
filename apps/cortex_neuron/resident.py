"""One model on this node: what was asked for, how far it is, who is using it."""

import asyncio
import time
from dataclasses import dataclass, field

from cortex_core.errors import ApiError, Unavailable
from cortex_core.wire import Limit, LoadRequest, ModelInfo, Progress, Servable
from cortex_neuron.admission import Admission
from cortex_neuron.harness import Engine
from cortex_neuron.intents import Intents
from cortex_router import Life, Profile, Status, step

#: What is reckoned is not exact, so an engine is only done when it says so.
_ALMOST = 0.99
#: How a node calls itself where only this node is looked at.
HERE = "self"
#: What a model is when clients may expect answers of it.
_MEANT_TO_SERVE = frozenset({Status.LOADED, Status.RECOVERING})


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What a server that others use too says it works on, and what waits in it."""

    running: int
    waiting: int


@dataclass(slots=True, kw_only=True)
class Resident:
    """The state of one model from the moment its load is asked for until it has gone.

    `decided` is done when memory is promised or refused, `arrived` when it serves or failed, `gone`
    when its process has ended and its memory is back. `closed_for` is the model it makes way for:
    it takes no new requests and ends those it has. `awaited` counts callers who hold on for it.
    `attached_to` is the server that has it, where this node does not run it; `trouble` says what
    keeps it from serving.
    """

    request: LoadRequest
    harness: str | None
    admission: Admission
    status: Status = Status.QUEUED
    devices: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    context: int | None = None
    required_mb: int | None = None
    used_mb: int | None = None
    loaded_at: float | None = None
    load_secs: float | None = None
    loaded_in_cycle: int | None = None
    last_used: float | None = None
    progress: Progress | None = None
    failure: ApiError | None = None
    engine: Engine | None = None
    task: asyncio.Task[None] | None = None
    crashes: list[float] = field(default_factory=list)
    tok_s_prefill: float | None = None
    tok_s_decode: float | None = None
    keep_alive_secs: float | None = None
    closed_for: str | None = None
    asked_at: float = field(default_factory=time.time)
    intents: Intents = field(default_factory=Intents)
    awaited: int = 0
    attached_to: str | None = None
    trouble: str | None = None
    elsewhere: Elsewhere | None = None
    tells_progress: bool = False
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """The model id."""
        return self.request.model_id

    @property
    def shown_status(self) -> Status:
        """What others are told: a model that makes way is leaving, though it still serves."""
        return Status.UNLOADING if self.closed_for is not None else self.status

    def goes_through(self, event: Life) -> None:
        """Take a step in its life. Raises IllegalTransition, which is a bug of ours."""
        self.status = step(self.status, event)

    def heard(self, request: LoadRequest, caller: str) -> None:
        """Take in that somebody asks for it (again), and since when."""
        if request.waiting is not None:
            self.intents.hear(request.waiting.by or caller, request.waiting, time.time())

    def profile(self, size_mb: int | None) -> Profile:
        """Return what placement and eviction have to know of it."""
        wanted, residency = self.request.devices, self.request.residency
        return Profile(
            id=self.id,
            size_mb=size_mb,
            min_devices=self.request.tensor_parallel or len(wanted or ()) or 1,
            pinned_on=(HERE,) if residency.pinned else (),
            priority=residency.priority,
            apart_from=residency.apart_from,
        )

    def holds(self, held_mb: int) -> None:
        """Take in what its engine was seen to hold.

        While it loads that is how far it is, unless the engine says so itself.
        """
        if self.status is Status.LOADED:
            self.used_mb = held_mb
        elif self.progress and self.progress.phase == "loading" and not self.tells_progress:
            share = min(_ALMOST, held_mb / max(1, self.required_mb or 1))
            self.progress = self.progress.model_copy(update={"share": round(share, 3)})

    def close_for(self, wanted_by: str) -> None:
        """Take no new requests, so that the model leaves once it has served those it has.

        Those in its queue came before it was closed: they are the batch it ends.
        """
        self.closed_for = wanted_by
        why = Unavailable(f"the model {self.id!r} makes way for another", retry_after_secs=5)
        self.admission.refuse_newcomers(why)

    def reopen(self) -> None:
        """Take requests again: nobody wants its place any more."""
        self.closed_for = None
        self.admission.reopen()

    def overstays(self, now: float) -> bool:
        """Tell whether it has been idle for longer than whoever loaded it wanted to keep it."""
        keep = self.keep_alive_secs
        if keep is None or self.status is not Status.LOADED or self.attached_to is not None:
            return False
        busy = self.admission.in_flight + self.admission.queue_depth > 0
        return not busy and now - max(self.loaded_at or 0.0, self.last_used or 0.0) >= keep

    @property
    def in_flight(self) -> int:
        """Requests that are worked on: ours, or all that a server has, if those are more."""
        ours = self.admission.in_flight
        return ours if self.elsewhere is None else max(ours, self.elsewhere.running)

    @property
    def queue_depth(self) -> int:
        """Requests that wait, here or in the server that has the model."""
        there = 0 if self.elsewhere is None else self.elsewhere.waiting
        return self.admission.queue_depth + there

    @property
    def absence(self) -> ApiError | None:
        """Why nobody can be served now, with a seat or without."""
        if self.status is Status.LOADED and self.engine is not None:
            return None
        message = self.trouble or f"the model {self.id!r} is {self.status.value} on this node"
        return Unavailable(message, retry_after_secs=2)

    @property
    def refusal(self) -> ApiError | None:
        """Why whoever comes now is refused; None: it gets a seat, or a place in the queue."""
        return self.absence or self.admission.closed

    def row(self) -> ModelInfo:
        """Return the row of `GET /models`; `servable` says what a request would be told."""
        return ModelInfo(
            id=self.id,
            harness=self.harness,
            status=self.shown_status.value,
            devices=self.devices,
            vram_used_mb=self.used_mb,
            vram_required_mb=self.required_mb,
            capabilities=self.capabilities,
            limit=None if self.context is None else Limit(context=self.context),
            in_flight=self.in_flight,
            queue_depth=self.queue_depth,
            max_in_flight=self.admission.max_in_flight,
            last_used=self.last_used,
            loaded_at=self.loaded_at,
            load_secs=self.load_secs,
            loaded_in_cycle=self.loaded_in_cycle,
            progress=self.progress,
            servable=self._servable(),
            error=None if self.failure is None else self.failure.message,
        )

    def _servable(self) -> Servable:
        """Return what the row says; a model on its way here has nothing to answer for yet."""
        refusal = self.refusal
        if refusal is None or self.shown_status not in _MEANT_TO_SERVE:
            return Servable()
        reason = "closed" if self.absence is None else self.status.value
        return Servable(ok=False, reason=reason, detail=refusal.message)
