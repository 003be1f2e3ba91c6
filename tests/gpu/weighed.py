"""A model loaded and worked as an engine does it, so that torch can be asked what it holds.

It is asked once, with a plan; it then holds the model until its stdin ends.
"""

import gc
from typing import Any

import torch

from cortex_neuron.exllama.jobs import Job
from cortex_neuron.exllama.plan import Plan
from cortex_neuron.exllama.sampling import Sampling
from cortex_neuron.exllama.v2.backend import ExLlamaV2Backend
from tests.gpu.child import answer

_ANSWER_TOKENS = 16


class Weighed:
    """What was loaded; kept so that it stays."""

    def __init__(self) -> None:
        self._backend: ExLlamaV2Backend | None = None

    def asked(self, said: dict[str, Any]) -> dict[str, Any]:
        """Load, read one prompt as long as there can be, and return bytes by device."""
        plan = Plan.from_json(said)
        backend = self._backend = ExLlamaV2Backend(plan, lambda _done, _of: None)
        gc.collect()
        devices = range(torch.cuda.device_count())
        allocated = [torch.cuda.memory_allocated(index) for index in devices]
        longest = plan.context - _ANSWER_TOKENS
        backend.submit(
            1,
            Job(
                prompt=tuple(100 + at % 100 for at in range(longest)),
                max_tokens=_ANSWER_TOKENS,
                sampling=Sampling(temperature=0),
            ),
        )
        while backend.busy():
            backend.step()
        return {
            "allocated": allocated,
            "peak": [torch.cuda.max_memory_allocated(index) for index in devices],
        }


if __name__ == "__main__":
    answer(Weighed().asked)
