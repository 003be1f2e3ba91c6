"""The one writer of what is on this node: loads, evictions, unloads, crashes.

Everything that changes the set of residents happens here, on one event loop, with no await between
a check and what follows from it. That is the load gate of every model id: N callers, one load.
Memory is promised and victims are marked in one step, so a load that does not fit has touched
nothing.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import structlog

from cortex_core.errors import (
    ApiError,
    InsufficientVram,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    ShuttingDown,
    Unavailable,
)
from cortex_core.settings import AdmissionSettings, NeuronTimeouts
from cortex_core.wire import LoadAnswer, LoadRequest, ModelInfo, Progress
from cortex_neuron.admission import Admission
from cortex_neuron.discovery import Held
from cortex_neuron.engine_process import EngineFailed
from cortex_neuron.faults import Ending, Fault
from cortex_neuron.harness import Engine
from cortex_neuron.ledger import Ledger
from cortex_neuron.resident import Resident
from cortex_neuron.room import Room
from cortex_neuron.supervision import Restarts, Supervisor
from cortex_neuron.turns import LAPSE_SECS, Turns
from cortex_neuron.world import Prepared, Workshop
from cortex_router import Life, Status, Swapping

log = structlog.get_logger()

#: A load that is decided this fast is answered at once, also to callers that do not wait.
DECIDE_SECS = 2.0
#: A failed model stays listed for so long, so that everybody who waited sees why. A load that did
#: not fit or was badly asked for has not failed: it was refused, and whoever asked has been told.
FAILED_ROW_SECS = 30.0
_OVER = frozenset({Status.FAILED, Status.UNLOADING})


class Registry:
    """The models of this node."""

    def __init__(
        self,
        *,
        workshop: Workshop,
        ledger: Ledger,
        room: Room,
        admission: AdmissionSettings,
        timeouts: NeuronTimeouts,
        swapping: Swapping | None = None,
        restarts: Restarts | None = None,
        lapse_secs: float = LAPSE_SECS,
    ) -> None:
        self._workshop = workshop
        self._ledger = ledger
        self._room = room
        self.admission = admission
        self._timeouts = timeouts
        self._residents: dict[str, Resident] = {}
        self._tell_change: Callable[[], None] = lambda: None
        self._tell_move: Callable[[], None] = lambda: None
        self._closing = False
        self._supervisor = Supervisor(
            ledger=ledger,
            measure=self._measure,
            trouble=workshop.trouble,
            ask_health=workshop.ask_health,
            hang_secs=timeouts.hang,
            restarts=restarts or Restarts(),
            max_in_flight=admission.max_in_flight,
            changed=self._changed,
            moved=self._moved,
        )
        self._turns = Turns(
            room=room,
            residents=self._residents,
            swapping=swapping or Swapping(),
            measure=self._measure,
            leave=lambda resident: self._leave(resident, drain_secs=0),
            moved=self._moved,
            lapse_secs=lapse_secs,
        )

    @property
    def load_cycles(self) -> int:
        """How many engines have been started."""
        return self._supervisor.load_cycles

    def on_change(self, changed: Callable[[], None], moved: Callable[[], None]) -> None:
        """Call `moved` when a model takes a step in its life, `changed` after any other change."""
        self._tell_change, self._tell_move = changed, moved

    @property
    def residents(self) -> Mapping[str, Resident]:
        """Every model that is here or on its way, by id."""
        return self._residents

    def engines(self) -> dict[str, Engine]:
        """Return the engines that run, by model id."""
        return {r.id: r.engine for r in self._residents.values() if r.engine is not None}

    def rows(self) -> list[ModelInfo]:
        """Return the rows of every resident, by id."""
        return [self._residents[model].row() for model in sorted(self._residents)]

    def serving(self, model: str) -> tuple[Resident, Engine]:
        """Return the loaded model and its engine. Raises 503 while it arrives, 404 otherwise."""
        resident = self._residents.get(model)
        if resident is None:
            raise ModelNotFound(
                f"the model {model!r} is not loaded on this node; POST /models/load first",
                param="model",
            )
        if (absence := resident.absence) is not None:
            raise absence
        assert resident.engine is not None  # noqa: S101  # or it would be absent
        return resident, resident.engine

    async def load(self, request: LoadRequest, caller: str = "") -> LoadAnswer:
        """Bring a model up, or join whoever is doing so. Raises the ApiError that stopped it."""
        resident = self._residents.get(request.model_id)
        while resident is not None and resident.status is Status.UNLOADING:
            await resident.gone.wait()
            resident = self._residents.get(request.model_id)
        if resident is None or resident.status is Status.FAILED:
            if request.withdrawn:
                raise ModelNotFound(f"nobody waits for {request.model_id!r}", param="model_id")
            resident = self._begin(request)
        resident.heard(request, caller)
        self._turns.stir()
        if request.wait:
            resident.awaited += 1
            try:
                await resident.arrived.wait()
            finally:
                resident.awaited -= 1
        elif not resident.decided.is_set() and not request.withdrawn:
            try:
                async with asyncio.timeout(DECIDE_SECS):
                    await resident.decided.wait()
            except TimeoutError:
                pass
        if resident.failure is not None:
            raise resident.failure
        if resident.status is Status.LOADED:
            return LoadAnswer(status="loaded")
        if (wanting := self._turns.waiting(resident.id)) is not None:
            eta = None if wanting.until is None else max(0.0, wanting.until - time.time())
            return LoadAnswer(status="queued", position=max(1, wanting.position), eta_secs=eta)
        return LoadAnswer(status="loading", progress=resident.progress)

    async def unload(self, model: str, drain_secs: float) -> None:
        """Let requests end for `drain_secs`, then stop the engine. Raises ModelNotFound."""
        resident = self._residents.get(model)
        if resident is None:
            raise ModelNotFound(f"the model {model!r} is not loaded on this node", param="model_id")
        if resident.attached_to is not None:
            raise InvalidRequest(
                f"{model!r} is on the server {resident.attached_to!r}, which this node does not "
                "stop; unload it there",
                code="not_ours",
                param="model_id",
            )
        if resident.status is Status.UNLOADING:
            await resident.gone.wait()
            return
        self._leave(resident, drain_secs)
        await resident.gone.wait()

    def unload_idle(self, now: float) -> None:
        """Let go of models that nobody has used for their `keep_alive_secs`. `now` is Unix time."""
        for resident in list(self._residents.values()):
            if resident.overstays(now):
                log.info("model.idle", model=resident.id)
                self._leave(resident, drain_secs=0)

    def adopt(self, resident: Resident) -> bool:
        """Enter a model that somebody else runs; False when its id is taken."""
        if self._closing or resident.id in self._residents:
            return False
        self._residents[resident.id] = resident
        self._moved()
        return True

    def dismiss(self, resident: Resident) -> None:
        """Take out a model that somebody else ran."""
        resident.admission.close(Unavailable(f"the model {resident.id!r} has gone"))
        if self._residents.get(resident.id) is resident:
            del self._residents[resident.id]
        resident.gone.set()
        self._moved()

    def touch(self) -> None:
        """Say that something may have changed about a model."""
        self._changed()

    def device_failed(self, device: int, reason: str) -> None:
        """End every engine on a device that computes no more: its requests must not wait for it."""
        for resident in self._residents.values():
            if device in resident.devices and resident.engine is not None:
                resident.engine.kill(Ending(Fault.DEVICE, f"device {device} failed: {reason}"))

    async def close(self, drain_secs: float) -> None:
        """Unload everything; loads in progress are abandoned."""
        self._closing = True
        for resident in list(self._residents.values()):
            if resident.status is not Status.UNLOADING:
                self._leave(resident, drain_secs)
        waits = [resident.gone.wait() for resident in self._residents.values()]
        if waits:
            limit = drain_secs + self._timeouts.unload + 5
            await asyncio.wait([asyncio.ensure_future(one) for one in waits], timeout=limit)

    def _changed(self) -> None:
        self._tell_change()
        self._turns.stir()

    def _moved(self) -> None:
        self._tell_move()
        self._turns.stir()

    def _begin(self, request: LoadRequest) -> Resident:
        """Enter a model and start bringing it up. No await: this is the gate."""
        if self._closing:
            raise ShuttingDown("this node is shutting down")
        self._workshop.check_harness(request)
        resident = Resident(
            request=request,
            harness=request.harness,
            admission=Admission(
                max_in_flight=self.admission.max_in_flight or 1,
                max_queue_depth=self.admission.max_queue_depth,
                max_wait_secs=self.admission.max_wait_secs,
                changed=self._changed,
            ),
            progress=Progress(phase="queued", started_at=time.time()),
            keep_alive_secs=request.keep_alive_secs,
        )
        self._residents[request.model_id] = resident
        resident.task = asyncio.create_task(self._live(resident))
        self._moved()
        return resident

    async def _live(self, resident: Resident) -> None:
        """The whole life of one model, from the request for it to its end."""
        try:
            prepared = await self._bring_up(resident)
            await self._supervisor.keep_up(resident, prepared)
        except ApiError as error:
            await self._stop_engine(resident)
            self._failed(resident, error)
        except asyncio.CancelledError:
            raise
        except Exception:  # a task's last resort: nobody may wait for ever
            log.exception("model.crashed", model=resident.id)
            await self._stop_engine(resident)
            self._failed(resident, InternalError("loading failed inside the node; see its log"))
        finally:
            self._failed(resident, ShuttingDown("the load was abandoned"))
        if not isinstance(resident.failure, InsufficientVram | InvalidRequest):
            await asyncio.sleep(FAILED_ROW_SECS)
        if self._residents.get(resident.id) is resident:
            del self._residents[resident.id]
            self._moved()

    async def _bring_up(self, resident: Resident) -> Prepared:
        started = time.perf_counter()

        def report(progress: Progress) -> None:
            resident.progress = progress
            self._changed()

        resident.goes_through(Life.PLACED)
        prepared = await self._workshop.prepare(resident.request, report)
        resident.harness = prepared.harness_name
        resident.capabilities = prepared.capabilities
        resident.required_mb = resident.request.vram_mb or prepared.required_mb
        if resident.request.waiting is None:
            await self._measure()
            leaving = self._reserve(resident)
        else:
            resident.goes_through(Life.CROWDED)
            leaving = await self._turns.turn(resident, resident.required_mb)
            resident.goes_through(Life.PLACED)
        resident.decided.set()
        report(Progress(phase="loading", started_at=time.time()))
        for victim in leaving:
            await victim.gone.wait()
        await self._start(resident, prepared, after=leaving)
        log.info(
            "model.loaded",
            model=resident.id,
            devices=list(resident.devices),
            used_mb=resident.used_mb,
            evicted=[victim.id for victim in leaving],
            elapsed_secs=round(time.perf_counter() - started, 3),
        )
        return prepared

    async def _start(
        self, resident: Resident, prepared: Prepared, after: Sequence[Resident]
    ) -> None:
        """Start the engine, once what others gave up for it is really there."""
        if after and (missing := await self._supervisor.missing_mb(resident.id)) > 0:
            log.warning("memory.not_back", model=resident.id, missing_mb=missing)
            raise self._room.short(resident.request, self._residents, reason="memory_not_back")
        try:
            await self._supervisor.start(resident, prepared)
        except EngineFailed as error:
            if error.fault is not Fault.OUT_OF_MEMORY:
                raise
            raise self._room.short(
                resident.request, self._residents, reason="out_of_memory"
            ) from error

    async def _measure(self) -> Mapping[str, Held]:
        return await self._workshop.measure(self.engines())

    def _reserve(self, resident: Resident) -> list[Resident]:
        """Promise memory and mark victims: one step, no await in it."""
        assert resident.required_mb is not None  # noqa: S101  # set by the only caller
        found = self._room.reserve(resident.request, resident.required_mb, self._residents)
        resident.devices = found.devices
        victims = [self._residents[name] for name in found.victims]
        for victim in victims:
            self._leave(victim, drain_secs=0)
        return victims

    async def _stop_engine(self, resident: Resident) -> None:
        engine, resident.engine = resident.engine, None
        if engine is not None:
            await engine.stop(self._timeouts.unload)

    def _failed(self, resident: Resident, error: ApiError) -> None:
        if resident.status in _OVER:  # it is being taken down, which tells everybody
            return
        log.warning("model.failed", model=resident.id, code=error.code, error=error.message)
        resident.failure = error
        resident.goes_through(Life.FAILED)
        resident.engine = None
        resident.progress = None
        resident.used_mb = None
        self._ledger.release(resident.id)
        resident.admission.close(Unavailable(f"the model {resident.id!r} failed on this node"))
        for event in (resident.decided, resident.arrived, resident.gone):
            event.set()
        self._moved()

    def _leave(self, resident: Resident, drain_secs: float) -> None:
        """Mark a model as leaving and start to take it down."""
        resident.goes_through(Life.LEAVE)
        resident.closed_for = None
        resident.admission.close(
            Unavailable(f"the model {resident.id!r} is being unloaded", retry_after_secs=1)
        )
        self._moved()
        living = resident.task
        resident.task = asyncio.create_task(self._take_down(resident, living, drain_secs))

    async def _take_down(
        self, resident: Resident, living: asyncio.Task[None] | None, drain_secs: float
    ) -> None:
        try:
            if drain_secs > 0:
                try:
                    async with asyncio.timeout(drain_secs):
                        await resident.admission.emptied()
                except TimeoutError:
                    log.warning(
                        "unload.cut", model=resident.id, in_flight=resident.admission.in_flight
                    )
            if living is not None:
                living.cancel()
                await asyncio.wait([living])
            await self._stop_engine(resident)
            with suppress(Exception):  # what it freed is seen at the next reading then
                await self._measure()
        finally:
            self._ledger.release(resident.id)
            if self._residents.get(resident.id) is resident:
                del self._residents[resident.id]
            resident.failure = resident.failure or Unavailable(
                f"the model {resident.id!r} was unloaded", retry_after_secs=1
            )
            for event in (resident.decided, resident.arrived, resident.gone):
                event.set()
            log.info("model.unloaded", model=resident.id)
            self._moved()
