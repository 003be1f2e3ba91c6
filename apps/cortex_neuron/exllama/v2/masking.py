"""A grammar as one of exllamav2's filters: it puts out of reach what must not come next.

A filter that raises would take every running job along, so this one remembers what went wrong and
lets its job end; the backend looks at `failure` after each step.
"""

import numpy as np
import torch
from exllamav2 import ExLlamaV2, ExLlamaV2Tokenizer
from exllamav2.generator.filters import ExLlamaV2Filter

from cortex_neuron.exllama.jobs import Mask

_NEVER = float("-inf")


class MaskFilter(ExLlamaV2Filter):  # type: ignore[misc]  # exllamav2 has no types
    """Keeps one job to its grammar. `ends` are the tokens that a job without a choice ends in."""

    def __init__(
        self, model: ExLlamaV2, tokenizer: ExLlamaV2Tokenizer, mask: Mask, ends: frozenset[int]
    ) -> None:
        super().__init__(model, tokenizer)
        self.failure: Exception | None = None
        self._mask = mask
        self._ends = sorted(ends)
        self._bits = b""

    def begin(self, prefix_str: str) -> None:
        """Nothing: the grammar is at its beginning."""

    def feed(self, token: torch.Tensor) -> None:
        """Go on past a token."""
        if self.failure is None:
            try:
                self._mask.accept(int(token))
            except Exception as error:  # noqa: BLE001  # told through the backend
                self.failure = error

    def use_background_worker(self) -> bool:
        """Yes: the next mask is made while the model computes."""
        return True

    def can_mask_logits(self) -> bool:
        """Yes."""
        return True

    def prepare_logit_mask(self) -> bool:
        """Find out what may come next."""
        if self.failure is None:
            try:
                self._bits = self._mask.allowed()
            except Exception as error:  # noqa: BLE001  # told through the backend
                self.failure = error
        return True

    def mask_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Return `logits` (one row) with everything else out of reach."""
        allowed = torch.zeros(logits.shape[-1], dtype=torch.bool)
        if self.failure is None:
            bits = np.unpackbits(np.frombuffer(self._bits, dtype=np.uint8), bitorder="little")
            known = min(len(bits), logits.shape[-1])
            allowed[:known] = torch.from_numpy(bits[:known].astype(bool))
        if not allowed.any():
            if not self._ends:
                return logits
            allowed[self._ends] = True
        return logits.masked_fill(~allowed, _NEVER)
