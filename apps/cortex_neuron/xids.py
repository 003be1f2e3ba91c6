"""What the NVIDIA driver's error numbers mean for the models on a GPU.

A fault of the application has hit one process, which finds out by itself and ends; others on the
GPU go on. A fault of the device leaves nothing to compute with until the GPU has been reset or the
machine restarted. All else is told and not acted on.
"""

from enum import Enum
from types import MappingProxyType
from typing import Final


class Severity(Enum):
    """Whom an XID concerns."""

    NOTICE = "notice"
    APPLICATION = "application"
    DEVICE = "device"


_NOTICE, _APPLICATION, _DEVICE = Severity.NOTICE, Severity.APPLICATION, Severity.DEVICE

_KNOWN: Final = MappingProxyType(
    {
        13: (_APPLICATION, "a kernel went wrong"),
        31: (_APPLICATION, "a kernel used memory that is not its own"),
        32: (_APPLICATION, "a broken command reached the GPU"),
        43: (_APPLICATION, "a process's work was stopped"),
        45: (_APPLICATION, "a process's work was cleared away"),
        48: (_DEVICE, "memory has an error that cannot be corrected"),
        62: (_DEVICE, "the GPU's controller has stopped"),
        63: (_NOTICE, "memory with errors is taken out of use"),
        64: (_DEVICE, "memory with errors could not be taken out of use"),
        69: (_APPLICATION, "a kernel went wrong"),
        74: (_DEVICE, "the link between GPUs has failed"),
        79: (_DEVICE, "the GPU has fallen off the bus"),
        94: (_APPLICATION, "a memory error was contained in one process"),
        95: (_DEVICE, "a memory error could not be contained"),
        119: (_DEVICE, "the GPU's system processor does not answer"),
        120: (_DEVICE, "the GPU's system processor has failed"),
        140: (_DEVICE, "memory has errors that were not recovered"),
        143: (_DEVICE, "the GPU could not be initialised"),
    }
)


def severity_of(xid: int) -> Severity:
    """Return whom the fault concerns; an unknown one is a notice."""
    return _KNOWN.get(xid, (_NOTICE, ""))[0]


def describe(xid: int) -> str:
    """Return the fault in words, with its number."""
    words = _KNOWN.get(xid, (_NOTICE, ""))[1]
    return f"XID {xid}: {words}" if words else f"XID {xid}"
