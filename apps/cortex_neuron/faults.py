"""What ended an engine: read from what it wrote last and how it died.

A fault says what happens next. `DEVICE` poisons the process: CUDA answers nothing any more, so it
is killed at once and another one started. `OUT_OF_MEMORY` at load is a load that did not fit. With
`NO_DEVICE` a new process would fail in the same way. `HUNG` is said by whoever watched it. All else
is `CRASHED`.
"""

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """Why an engine's process is of no use any more."""

    CRASHED = "crashed"
    DEVICE = "device_fault"
    OUT_OF_MEMORY = "out_of_memory"
    NO_DEVICE = "no_device"
    HUNG = "hung"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Ending:
    """How an engine's process ended: for the log, never for a client."""

    fault: Fault
    reason: str

    def __str__(self) -> str:
        return self.reason


_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|std::bad_alloc|\bMemoryError\b|ALLOC_FAILED"
    r"|cudaErrorMemoryAllocation|[Ii]nsufficient (?:VRAM|space in device allocation)"
    r"|failed to allocate .{0,40}buffer|unable to allocate .{0,40}buffer"
)
_NO_DEVICE = re.compile(
    r"no CUDA-capable device|No CUDA GPUs are available|Found no NVIDIA driver"
    r"|CUDA driver version is insufficient|invalid device ordinal|system has unsupported display"
)
_DEVICE = re.compile(
    r"CUDA error|cudaError\w+|AcceleratorError|illegal memory access|device-side assert"
    r"|unspecified launch failure|misaligned address|illegal instruction was encountered"
    r"|uncorrectable ECC|fallen off the bus|GPU is lost|_STATUS_EXECUTION_FAILED"
)
#: What stands before it where somebody reports it; in front of a mere quotation there is more.
_SAYS = "CUDA error: "
_REPORTER = re.compile(r"\s*(?:[\w.]{1,80}(?:Error|Exception): |what\(\): +)?")
_BY_RULE = (
    (_OUT_OF_MEMORY, Fault.OUT_OF_MEMORY),
    (_NO_DEVICE, Fault.NO_DEVICE),
    (_DEVICE, Fault.DEVICE),
)


def fault_in(lines: Iterable[str]) -> Fault | None:
    """Return what the last telling line speaks of, None when no line tells."""
    found: Fault | None = None
    for line in lines:
        found = next((fault for rule, fault in _BY_RULE if rule.search(line)), found)
    return found


def is_poisoned(line: str) -> bool:
    """Tell whether a line of a living engine says that its device has failed under it."""
    before, found, _ = line.partition(_SAYS)
    if not found or _REPORTER.fullmatch(before) is None:
        return False
    return fault_in((line,)) is Fault.DEVICE


def ending_of(code: int, lines: Iterable[str]) -> Ending:
    """Return how a process ended that left `code` (negative: a signal) and wrote `lines` last."""
    fault = fault_in(lines) or Fault.CRASHED
    if code >= 0:
        return Ending(fault, f"the engine ended with status {code}")
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
    return Ending(fault, f"the engine was killed by {name}{hint}")
