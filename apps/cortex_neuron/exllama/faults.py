"""What an exception of the inference library means for the jobs, and for the process.

A device fault poisons the CUDA context: every later call fails, and only a new process helps. Out
of memory and everything else leave the context whole: the jobs are lost, the model serves on.
"""

from enum import Enum

from cortex_core.errors import ApiError, InternalError, Unavailable

_OUT_OF_MEMORY = ("out of memory", "insufficient vram", "insufficient space")
#: Errors of the driver and of the libraries on top of it; torch names no class for most of them.
_DEVICE = ("cuda error", "cublas", "cudnn", "nccl", "device-side assert", "illegal memory access")


class Fault(Enum):
    """How far a failure reaches."""

    JOBS = "jobs"
    MEMORY = "memory"
    DEVICE = "device"


def fault_of(error: BaseException) -> Fault:
    """Return how far `error` reaches."""
    text = str(error).lower()
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "OutOfMemoryError" in kinds or any(word in text for word in _OUT_OF_MEMORY):
        return Fault.MEMORY
    if "AcceleratorError" in kinds or any(word in text for word in _DEVICE):
        return Fault.DEVICE
    return Fault.JOBS


def lost_job(fault: Fault) -> ApiError:
    """Return what whoever asked for a lost job is told."""
    match fault:
        case Fault.MEMORY:
            return Unavailable(
                "the GPU ran out of memory while it worked on this; ask again, or for less",
                code="out_of_memory",
                retry_after_secs=5,
            )
        case Fault.DEVICE:
            return Unavailable(
                "the GPU failed while it worked on this; the model is being restarted",
                code="device_fault",
                retry_after_secs=15,
            )
        case Fault.JOBS:
            return InternalError("the engine failed while it worked on this; its log says why")
