"""A grammar as one of exllamav3's filters: it says which tokens may come next, a bit for each.

A filter that raises would end more than its job, so this one remembers what went wrong; the backend
looks at `failure` after each step. It is never complete: a grammar at its end allows the end.
"""

import torch
from exllamav3 import Filter, Tokenizer

from cortex_neuron.exllama.jobs import Mask


class MaskFilter(Filter):  # type: ignore[misc]  # exllamav3 has no types that mypy sees
    """Keeps one job to its grammar. `ends` are the tokens that a job without a choice ends in."""

    def __init__(self, tokenizer: Tokenizer, mask: Mask, ends: frozenset[int]) -> None:
        super().__init__(tokenizer, None, None, eos_after_completed=False)
        self.failure: Exception | None = None
        self._mask = mask
        self._ends = sorted(ends)

    def reset(self) -> None:
        """Nothing: the grammar is at its beginning."""

    def accept_token(self, token: int) -> None:
        """Go on past a token."""
        if self.failure is None:
            try:
                self._mask.accept(int(token))
            except Exception as error:  # noqa: BLE001  # told through the backend
                self.failure = error

    def get_next_logit_mask(self) -> torch.Tensor:
        """Return 32 tokens in each number, in one row."""
        bits = bytearray(-(-self.vocab_size // 32) * 4)
        if self.failure is None:
            try:
                allowed = self._mask.allowed()[: len(bits)]
                bits[: len(allowed)] = allowed
            except Exception as error:  # noqa: BLE001  # told through the backend
                self.failure = error
        if not any(bits):
            for token in self._ends or range(self.vocab_size):
                bits[token // 8] |= 1 << token % 8
        return torch.frombuffer(bits, dtype=torch.int32)[None]

    def is_completed(self) -> bool:
        """No."""
        return False
