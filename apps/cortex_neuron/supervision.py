"""An engine's life under our eyes: started, watched, restarted, given up.

1. A start measures memory before and after it, and settles what was promised.
2. An engine that dies fails its requests at once, because their connections end with it; its model
   recovers, and its memory stays promised.
3. Restarts have pauses that grow and a budget; a start that fails counts like a crash. What another
   start cannot mend (the device is gone) ends it at once.
4. One that hangs is killed, and goes on as in 2.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from cortex_core.errors import EngineStartFailed, Unavailable
from cortex_core.wire import Progress
from cortex_neuron.discovery import Held
from cortex_neuron.engine_process import EngineFailed
from cortex_neuron.faults import Ending, Fault
from cortex_neuron.hanging import Answer, Look, Suspicion
from cortex_neuron.harness import Engine, Report
from cortex_neuron.ledger import Ledger
from cortex_neuron.meters import SILENT
from cortex_neuron.processes import processor_secs
from cortex_neuron.resident import Resident
from cortex_neuron.world import Prepared
from cortex_router import Life

log = structlog.get_logger()

AskHealth: TypeAlias = Callable[[Engine], Awaitable[Answer]]
"""Asks an engine for its health."""

#: What evicted engines held is waited for so long, and looked for this often.
MEMORY_BACK_SECS, MEMORY_LOOK_SECS = 5.0, 0.1
#: Looks in the time that an engine may be silent.
_LOOKS = 8
_REPORT_EVERY_SECS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """How often a crashed engine is started again: pauses grow fourfold, and there is an end."""

    first_pause_secs: float = 0.25
    crashes_before_giving_up: int = 5
    window_secs: float = 600.0

    def pause_secs(self, crashes: int) -> float:
        """Return the pause after so many crashes in the window: 0.25, 1, 4, 16 s."""
        return float(self.first_pause_secs * 4 ** (crashes - 1))


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Starts engines and keeps them up.

    `measure` reads the meters into the ledger and returns what each model holds; `trouble` tells
    what is wrong with one of some devices, if anything is.
    """

    ledger: Ledger
    measure: Callable[[], Awaitable[Mapping[str, Held]]]
    trouble: Callable[[tuple[int, ...]], str | None]
    ask_health: AskHealth
    hang_secs: float
    restarts: Restarts
    max_in_flight: int | None
    changed: Callable[[], None]
    moved: Callable[[], None]
    load_cycles: int = 0

    async def missing_mb(self, model: str) -> int:
        """Return what a promise lacks of free memory, once it has had the time to come back."""
        deadline = time.monotonic() + MEMORY_BACK_SECS
        while True:
            await self.measure()
            missing = self.ledger.missing_mb(model)
            if missing <= 0 or time.monotonic() > deadline:
                return missing
            await asyncio.sleep(MEMORY_LOOK_SECS)

    async def start(self, resident: Resident, prepared: Prepared) -> None:
        """Bring the engine of a model up. Raises the ApiError that stopped it."""
        began = time.monotonic()
        await self.measure()
        trouble = self.trouble(resident.devices)
        if trouble == SILENT:
            raise EngineStartFailed("this node cannot see how full its devices are now")
        if trouble is not None:
            raise Unavailable(
                f"a device of {resident.id!r} is out of order: {trouble}", code="device_failed"
            )
        self.ledger.begin(resident.id)
        engine = await prepared.start(resident.devices, self._reporter(resident))
        resident.load_secs = time.monotonic() - began
        self.load_cycles += 1
        resident.loaded_in_cycle = self.load_cycles
        resident.engine = engine
        self.ledger.settle(resident.id, (await self.measure()).get(resident.id))
        resident.used_mb = self.ledger.held[resident.id].whole_mb
        resident.context = engine.context
        pages = None if engine.cache is None else engine.cache.pages
        resident.admission.serve(self.max_in_flight or engine.slots, pages)
        resident.progress = None
        resident.loaded_at = time.time()
        resident.goes_through(Life.UP)
        resident.arrived.set()
        self.moved()

    async def keep_up(self, resident: Resident, prepared: Prepared) -> None:
        """Watch the engine; start it again when it ends, until that is of no use. Raises then."""
        while True:
            ending = await self._ended(resident)
            resident.engine = None
            self._count(resident, ending)
            self.ledger.begin(resident.id)
            resident.goes_through(Life.CRASHED)
            self.moved()
            down_at = time.monotonic()
            await self._restart(resident, prepared)
            log.info(
                "engine.recovered",
                model=resident.id,
                down_secs=round(time.monotonic() - down_at, 3),
            )

    async def _restart(self, resident: Resident, prepared: Prepared) -> None:
        while True:
            await asyncio.sleep(self.restarts.pause_secs(len(resident.crashes)))
            try:
                await self.start(resident, prepared)
            except EngineStartFailed as error:
                fault = error.fault if isinstance(error, EngineFailed) else Fault.CRASHED
                self._count(resident, Ending(fault, f"it did not start again: {error.message}"))
            else:
                return

    def _count(self, resident: Resident, ending: Ending) -> None:
        """Enter one more crash. Raises Unavailable when there is no point in another start."""
        now = time.monotonic()
        recent = [at for at in resident.crashes if now - at < self.restarts.window_secs]
        resident.crashes = [*recent, now]
        log.error(
            "engine.crashed",
            model=resident.id,
            fault=ending.fault.value,
            reason=ending.reason,
            crashes=len(resident.crashes),
            in_flight=resident.admission.in_flight,
        )
        if ending.fault is Fault.NO_DEVICE:
            raise Unavailable(f"the devices of {resident.id!r} are gone", code="device_failed")
        if len(resident.crashes) >= self.restarts.crashes_before_giving_up:
            raise Unavailable(
                f"the engine of {resident.id!r} keeps crashing", code="engine_crashed"
            )

    async def _ended(self, resident: Resident) -> Ending:
        """Return how the engine ended; one that hangs is helped."""
        engine = resident.engine
        assert engine is not None  # noqa: S101  # loaded
        watch = asyncio.create_task(self._watch(resident, engine))
        try:
            ending = await engine.wait()
        finally:
            watch.cancel()
        await engine.stop(0)
        return ending

    async def _watch(self, resident: Resident, engine: Engine) -> None:
        suspicion = Suspicion(self.hang_secs)
        while True:
            await asyncio.sleep(self.hang_secs / _LOOKS)
            busy = resident.admission.in_flight > 0
            look = Look(
                at=time.monotonic(),
                busy=busy,
                answer=await self._answer(engine) if busy else Answer.WELL,
                processor_secs=None if engine.pid is None else processor_secs(engine.pid),
            )
            if (why := suspicion.see(look)) is not None:
                engine.kill(Ending(Fault.HUNG, why))
                return

    async def _answer(self, engine: Engine) -> Answer:
        """Ask an engine for its health, so that the looks fit into the limit."""
        try:
            async with asyncio.timeout(self.hang_secs / 4):
                return await self.ask_health(engine)
        except TimeoutError:
            return Answer.NONE

    def _reporter(self, resident: Resident) -> Report:
        started, told = time.time(), 0.0

        def report(done: int, total: int | None) -> None:
            nonlocal told
            if (now := time.monotonic()) - told < _REPORT_EVERY_SECS and done != total:
                return
            told = now
            resident.tells_progress = bool(total)
            share = None if not total else min(1.0, done / total)
            resident.progress = Progress(phase="loading", share=share, started_at=started)
            self.changed()

        return report
