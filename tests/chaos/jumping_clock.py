"""Run one of our programs with a wall clock that jumps when it is told to.

    python tests/chaos/jumping_clock.py FILE PACKAGE ARGUMENTS…

SIGUSR1 reads from FILE by how many seconds `time.time` is off. The monotonic clock goes on, as it
does when a real machine's clock is set.
"""

import runpy
import signal
import sys
import time
from pathlib import Path
from types import FrameType

_offset_secs = 0.0
_real = time.time


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
