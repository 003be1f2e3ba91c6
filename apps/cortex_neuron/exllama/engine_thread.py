"""The one thread that an inference library runs on, and the event loop's side of it.

1. Loading, generating, resetting and unloading happen on this thread and nowhere else; the loop
   only sends it commands and never waits for it.
2. Commands are taken between two steps, so a job that is cancelled has left after one step.
3. No more jobs wait than there may: one too many is refused before the thread hears of it.
4. A step that fails loses the jobs that were running; all who wait for one are told. A device
   fault is the end: nobody is served any more, and `fault` says so.
"""

import asyncio
import itertools
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from cortex_core.errors import ApiError, InternalError, QueueFull, ShuttingDown
from cortex_neuron.exllama.backend import Backend
from cortex_neuron.exllama.faults import fault_of, lost_job
from cortex_neuron.exllama.jobs import Broke, Ended, Generated, Job, JobEvent, Limits, Prefilled
from cortex_neuron.faults import Fault

log = structlog.get_logger()

_Command: TypeAlias = Callable[[Backend], None]
_STOP_SECS = 30.0


@dataclass(slots=True)
class Progress:
    """How far one job is, in tokens."""

    prompt: int
    prefilled: int = 0
    generated: int = 0


class EngineThread:
    """Runs a backend. Made and used on one event loop, started before it has anything to do."""

    def __init__(self, make: Callable[[], Backend], *, max_waiting: int) -> None:
        self._make = make
        self._max_waiting = max_waiting
        self._commands: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        self._tickets = itertools.count(1)
        self._sinks: dict[int, asyncio.Queue[JobEvent]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loaded: Future[Limits] = Future()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._refusal: ApiError | None = None
        self._stepped_at = time.monotonic()
        self.jobs: dict[int, Progress] = {}
        self.free_pages = 0
        self.fault = asyncio.Event()

    def load(self) -> Limits:
        """Load the model and return its limits. Blocking. Raises whatever loading raised."""
        self._thread.start()
        return self._loaded.result()

    @property
    def limits(self) -> Limits:
        """What the engine can hold, once it is loaded."""
        return self._loaded.result(timeout=0)

    @property
    def silent_secs(self) -> float:
        """Seconds since the last step while there is work; 0 when there is none."""
        return time.monotonic() - self._stepped_at if self.jobs else 0.0

    def check_room(self, jobs: int) -> None:
        """Raise the ApiError that `jobs` more would meet: a full queue, or an engine that ended."""
        if self._refusal is not None:
            raise self._refusal
        waiting = len(self.jobs) + jobs - self.limits.slots
        if jobs > self.limits.slots + self._max_waiting or (
            waiting > self._max_waiting and self.jobs
        ):
            raise QueueFull(
                f"{len(self.jobs)} answers are being worked on or wait already",
                retry_after_secs=min(120, 2 + len(self.jobs)),
            )

    @asynccontextmanager
    async def running(self, job: Job) -> AsyncIterator[AsyncIterator[JobEvent]]:
        """Run a job: gives its events, up to `Ended` or `Broke`. Leaving cancels it.

        Raises what `check_room` does.
        """
        self.check_room(1)
        self._loop = asyncio.get_running_loop()
        ticket = next(self._tickets)
        sink = self._sinks[ticket] = asyncio.Queue()
        if not self.jobs:
            self._stepped_at = time.monotonic()
        self.jobs[ticket] = Progress(prompt=len(job.prompt))
        self._commands.put(lambda backend: self._submit(backend, ticket, job))
        try:
            yield _until_the_end(sink)
        finally:
            self._sinks.pop(ticket, None)
            if self.jobs.pop(ticket, None) is not None:
                self._commands.put(lambda backend: backend.cancel(ticket))

    async def close(self) -> None:
        """Refuse newcomers, give up every job, unload, and end the thread."""
        self._refuse(ShuttingDown("the model is being unloaded"))
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join, _STOP_SECS)

    def _run(self) -> None:
        try:
            backend = self._make()
        except BaseException as error:  # noqa: BLE001  # whoever waits for the load is told
            self._loaded.set_exception(error)
            return
        self._loaded.set_result(backend.limits)
        self.free_pages = backend.free_pages
        try:
            while self._obey(backend):
                self._step(backend)
        except Exception as error:  # a thread's last resort: nobody may wait for ever
            log.exception("engine.fault", fault=fault_of(error).value)
            self._tell_loop(self._poisoned)
            return
        backend.close()

    def _obey(self, backend: Backend) -> bool:
        """Carry out what was commanded, waiting for it while there is nothing else to do."""
        while True:
            try:
                command = self._commands.get(block=not backend.busy())
            except queue.Empty:
                return True
            if command is None:
                return False
            command(backend)
            self.free_pages = backend.free_pages

    def _submit(self, backend: Backend, ticket: int, job: Job) -> None:
        try:
            backend.submit(ticket, job)
        except Exception as error:
            if fault_of(error) is Fault.DEVICE:
                raise
            log.exception("job.refused")
            broke = Broke(InternalError("the engine refused this job; its log says why"))
            self._tell([(ticket, broke)])

    def _step(self, backend: Backend) -> None:
        try:
            events = backend.step()
        except Exception as error:
            fault = fault_of(error)
            if fault is Fault.DEVICE:
                raise
            log.exception("step.failed", fault=fault.value)
            backend.reset()
            self._tell_loop(lambda: self._lose_all(lost_job(fault)))
            return
        self._stepped_at = time.monotonic()
        self.free_pages = backend.free_pages
        self._tell(events)

    def _tell(self, events: Iterable[tuple[int, JobEvent]]) -> None:
        told = tuple(events)
        if told:
            self._tell_loop(lambda: self._deliver(told))

    def _tell_loop(self, action: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action)

    def _deliver(self, events: tuple[tuple[int, JobEvent], ...]) -> None:
        for ticket, event in events:
            progress = self.jobs.get(ticket)
            if progress is None:
                continue
            match event:
                case Prefilled(done, _):
                    progress.prefilled = done
                case Generated(tokens, _):
                    progress.generated += len(tokens)
                case Ended() | Broke():
                    del self.jobs[ticket]
            self._sinks[ticket].put_nowait(event)

    def _lose_all(self, why: ApiError) -> None:
        self._deliver(tuple((ticket, Broke(why)) for ticket in tuple(self.jobs)))

    def _refuse(self, why: ApiError) -> None:
        self._refusal = why
        self._lose_all(why)

    def _poisoned(self) -> None:
        self._refuse(lost_job(Fault.DEVICE))
        self.fault.set()


async def _until_the_end(sink: asyncio.Queue[JobEvent]) -> AsyncIterator[JobEvent]:
    while True:
        event = await sink.get()
        yield event
        if isinstance(event, Ended | Broke):
            return
