"""How many tokens a prompt has, by its model's files: each kind has a counter of its own."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex_neuron.exllama.counters import Counters
from cortex_neuron.llamacpp.tokenizer import Tokenizers


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """The counters of one node: GGUF files and model folders."""

    files: Tokenizers
    folders: Counters

    async def count(self, path: Path, model_id: str, request: Mapping[str, Any]) -> int:
        """Return the tokens of a prompt for the model at `path`. Raises an ApiError."""
        counter = self.folders if await asyncio.to_thread(path.is_dir) else self.files
        return await counter.count(path, model_id, request)

    async def aclose(self) -> None:
        """Stop every process."""
        await asyncio.gather(self.files.aclose(), self.folders.aclose())
