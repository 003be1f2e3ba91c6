"""The meters of this machine, read off the loop; whoever asks gets a reading made after it asked.

NVML can block for seconds, for ever when a GPU dies. So each reading has a thread of its own and
never more than one is under way. Whoever waits for it too long gets the last one instead, with a
fault on every device: nothing is promised on numbers that nobody can see any more.
"""

import asyncio
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from cortex_core.wire import DeviceHealth
from cortex_neuron.discovery import Machine, Reading, read_machine

log = structlog.get_logger()

LIMIT_SECS = 5.0
SILENT = "the meters do not answer"


class Meters:
    """Reads one machine."""

    def __init__(self, machine: Machine, limit_secs: float = LIMIT_SECS) -> None:
        self._machine = machine
        self._limit_secs = limit_secs
        self._engines: Mapping[str, int] = {}
        self._running: asyncio.Future[Reading] | None = None
        self._following: asyncio.Task[Reading] | None = None
        self._failed: dict[int, str] = {}
        self.last = Reading()

    def fail(self, device: int, reason: str) -> None:
        """Take a device out of use for as long as this process lives, whatever its meters say."""
        self._failed[device] = reason
        self.last = self._judged(self.last)

    async def read(self, engines: Mapping[str, int]) -> Reading:
        """Return how full everything is; `engines` are the processes to look for, by model."""
        self._engines = engines
        if self._following is None:
            self._following = asyncio.create_task(self._next())
        try:
            async with asyncio.timeout(self._limit_secs):
                return await asyncio.shield(self._following)
        except TimeoutError:
            if self.last.devices and not all(one.fault for one in self.last.devices):
                log.error("meters.silent", waited_secs=self._limit_secs)  # noqa: TRY400
            self.last = _without_promise(self.last, SILENT)
            return self.last

    async def _next(self) -> Reading:
        """Wait for the reading that is under way, then make one for everybody who came since."""
        if self._running is not None:
            await asyncio.wait([self._running])
        self._following = None
        self._running = self._begin(self._engines)
        self.last = self._judged(await self._running)
        return self.last

    def _begin(self, engines: Mapping[str, int]) -> asyncio.Future[Reading]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Reading] = loop.create_future()

        def tell(reading: Reading | None, error: Exception | None) -> None:
            if error is not None:
                future.set_exception(error)
            elif reading is not None:
                future.set_result(reading)

        def work() -> None:
            reading, failed = None, None
            try:
                reading = read_machine(self._machine, engines)
            except Exception as error:  # noqa: BLE001  # whoever waits for it is told
                failed = error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, reading, failed)

        # A daemon: one that hangs in the driver must not keep the process from ending.
        threading.Thread(target=work, name="meters", daemon=True).start()
        return future

    def _judged(self, reading: Reading) -> Reading:
        """Return the reading with what is known to have failed."""
        devices = tuple(
            _broken(one, self._failed[one.index]) if one.index in self._failed else one
            for one in reading.devices
        )
        return replace(reading, devices=devices)


def _without_promise(reading: Reading, fault: str) -> Reading:
    return replace(reading, devices=tuple(_broken(one, fault) for one in reading.devices))


def _broken(device: DeviceHealth, fault: str) -> DeviceHealth:
    return device.model_copy(update={"vram_free_mb": 0, "fault": device.fault or fault})
