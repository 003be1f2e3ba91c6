"""The machine that was measured on, and how much of it others took meanwhile."""

import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_TOLD = ("cortex", "xllamacpp", "sanic", "aiohttp", "uvloop")
#: Less than this is no noise worth speaking of.
CALM_CORES = 0.2
_CALM_LOOK_SECS = 0.3


def header() -> dict[str, str]:
    """Return date, machine and versions."""
    memory = psutil.virtual_memory().total / (1 << 30)
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": ", ".join(f"{name} {_version(name)}" for name in _TOLD),
        "load": ", ".join(f"{one:.2f}" for one in os.getloadavg()),
    }


class Meter:
    """Processor seconds since `begin`: of each of our processes, and of everybody else.

    Others are whatever kept the machine busy and is not ours: the noise of a measurement.
    """

    def __init__(self, ours: Mapping[str, int]) -> None:
        self._ours = {**ours, "client": os.getpid()}
        self.begin()

    def begin(self) -> None:
        """Start counting."""
        self._at, self._busy, self._own = time.perf_counter(), _busy(), self._now()

    def spent(self) -> dict[str, float]:
        """Return the processor seconds of each of ours since `begin`."""
        return {name: secs - self._own[name] for name, secs in self._now().items()}

    def others(self) -> float:
        """Return the cores that others kept busy since `begin`, on average."""
        secs = time.perf_counter() - self._at
        return max(0.0, (_busy() - self._busy - sum(self.spent().values())) / secs)

    def wait_for_calm(self, within_secs: float) -> None:
        """Return once the others are nearly idle, or after `within_secs` all the same."""
        deadline = time.monotonic() + within_secs
        while time.monotonic() < deadline:
            self.begin()
            time.sleep(_CALM_LOOK_SECS)  # the length of one look
            if self.others() < CALM_CORES:
                return

    def _now(self) -> dict[str, float]:
        return {name: _spent(pid) for name, pid in self._ours.items()}


def _spent(pid: int) -> float:
    """Return the processor seconds of a process: to the nanosecond on Linux, else what there is."""
    try:
        tasks = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        if tasks:
            return sum(int(task.split()[0]) for task in tasks) / 1e9
    except OSError:
        pass  # A thread has ended between the two looks.
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _busy() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(none)"
