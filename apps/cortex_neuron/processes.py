"""What processes hold and how busy the cores are."""

import threading
from collections.abc import Iterable

import psutil


def family_of(pid: int) -> frozenset[int]:
    """Return `pid` and everything it started that still runs."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return frozenset({pid})
    return frozenset({pid, *(child.pid for child in children)})


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the resident memory of `pids` and their children; the gone ones hold nothing."""
    families = frozenset[int]().union(*(family_of(pid) for pid in pids))
    return sum(_resident(pid) for pid in families)


def processor_secs(pid: int) -> float | None:
    """Return the processor time that `pid` has used so far, None when it has gone."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return float(times.user + times.system)


def _resident(pid: int) -> int:
    try:
        held: int = psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0
    return held


class CpuMeter:
    """How busy all cores were since the last reading, from whichever thread it is read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy, self._total = self._times()

    def percent(self) -> float | None:
        """Return percent of all cores, or None when no time has passed."""
        with self._lock:
            busy, total = self._times()
            passed, worked = total - self._total, busy - self._busy
            if passed <= 0:
                return None
            self._busy, self._total = busy, total
        return round(min(100.0, max(0.0, 100 * worked / passed)), 1)

    def _times(self) -> tuple[float, float]:
        times = psutil.cpu_times()
        # Linux counts guests inside user and nice; they must not count twice.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return total - times.idle - getattr(times, "iowait", 0.0), total
