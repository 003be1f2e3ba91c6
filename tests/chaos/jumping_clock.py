"""Run one of our programs with a wall clock that jumps when it is told to.

    python -m tests.chaos.jumping_clock FILE PACKAGE ARGUMENTS…

SIGUSR1 reads from FILE by how many seconds `time.time` is off. The monotonic clock goes on, as it
does when a real machine's clock is set.
"""

import runpy
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from tests.fleet.processes import Daemon

_offset_secs = 0.0
_real = time.time


def with_jumping_clock(daemon: Daemon, file: Path) -> None:
    """Have a daemon that is not started yet, or start it anew, under this clock."""
    _, _, package, *arguments = daemon.argv
    daemon.argv = [sys.executable, "-m", __spec__.name, str(file), package, *arguments]
    if daemon.process is not None:
        daemon.stop()
        daemon.start()


def jump(daemon: Daemon, file: Path, secs: float) -> None:
    """Have a daemon's wall clock be off by so much from now on."""
    file.write_text(str(secs))
    daemon.signal(signal.SIGUSR1)


def _shifted() -> float:
    return _real() + _offset_secs


def main() -> None:
    """Shift the clock and become the program."""
    file, package = Path(sys.argv[1]), sys.argv[2]

    def jump(_: int, __: FrameType | None) -> None:
        global _offset_secs  # noqa: PLW0603  # there is one clock
        _offset_secs = float(file.read_text())

    signal.signal(signal.SIGUSR1, jump)
    time.time = _shifted
    sys.argv = [package, *sys.argv[3:]]
    runpy.run_module(package, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
