"""What an exception of the inference library means for the jobs, and what their clients are told.

A device fault poisons the CUDA context: every later call fails, and only a new process helps. Out
of memory and everything else leave the context whole: the jobs are lost, the model serves on.
"""

from cortex_core.errors import ApiError, InternalError, Unavailable
from cortex_neuron.faults import Fault, fault_in


def fault_of(error: BaseException) -> Fault:
    """Return how far `error` reaches."""
    kinds = (kind.__name__ for kind in type(error).__mro__)
    return fault_in((f"{' '.join(kinds)}: {error}",)) or Fault.CRASHED


def lost_job(fault: Fault) -> ApiError:
    """Return what whoever asked for a lost job is told."""
    match fault:
        case Fault.OUT_OF_MEMORY:
            return Unavailable(
                "the GPU ran out of memory while it worked on this; ask again, or for less",
                code="out_of_memory",
                retry_after_secs=5,
            )
        case Fault.DEVICE | Fault.NO_DEVICE:
            return Unavailable(
                "the GPU failed while it worked on this; the model is being restarted",
                code="device_fault",
                retry_after_secs=15,
            )
        case _:
            return InternalError("the engine failed while it worked on this; its log says why")
