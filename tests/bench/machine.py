"""The machine that was measured on, and how much of it others took meanwhile."""

import os
import platform
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_TOLD = ("cortex", "xllamacpp", "sanic", "aiohttp", "uvloop")
_CALM_CORES = 0.15
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


class Bystanders:
    """How many cores everybody else kept busy since `begin`: the noise of a measurement."""

    def __init__(self, ours: Iterable[int]) -> None:
        self._ours = [psutil.Process(pid) for pid in {os.getpid(), *ours}]
        self.begin()

    def begin(self) -> None:
        """Start counting."""
        self._at, self._busy, self._own = time.perf_counter(), _busy(), self._spent()

    def cores(self) -> float:
        """Return the cores that others kept busy since `begin`, on average."""
        secs = time.perf_counter() - self._at
        return max(0.0, (_busy() - self._busy - (self._spent() - self._own)) / secs)

    def wait_for_calm(self, within_secs: float) -> None:
        """Return once the others are nearly idle, or after `within_secs` all the same."""
        deadline = time.monotonic() + within_secs
        while time.monotonic() < deadline:
            self.begin()
            time.sleep(_CALM_LOOK_SECS)  # the length of one look
            if self.cores() < _CALM_CORES:
                return

    def _spent(self) -> float:
        total = 0.0
        for process in self._ours:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total


def family(*roots: int) -> set[int]:
    """Return these processes and all below them."""
    found = set(roots)
    for pid in roots:
        found |= {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return found


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
