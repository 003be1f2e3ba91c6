"""exllamav2 alone: its own generator in a process of its own, nothing of ours around it.

The first line it is asked loads a model, each further one has prompts answered, all at once.
"""

import time
from typing import Any

from exllamav2 import ExLlamaV2, ExLlamaV2Cache, ExLlamaV2Config, ExLlamaV2Tokenizer
from exllamav2.generator import (
    ExLlamaV2DynamicGenerator,
    ExLlamaV2DynamicJob,
    ExLlamaV2Sampler,
)

from tests.gpu.child import answer


class Bare:
    """A loaded model."""

    def __init__(self) -> None:
        self._generator: Any = None
        self._tokenizer: Any = None

    def asked(self, said: dict[str, Any]) -> dict[str, Any]:
        """Load, or generate."""
        return self._load(said) if "path" in said else self._generate(said)

    def _load(self, said: dict[str, Any]) -> dict[str, Any]:
        config = ExLlamaV2Config(said["path"])
        config.arch_compat_overrides(quiet=True)
        config.no_sdpa = True
        config.max_seq_len = said["context"]
        config.max_input_len = said["chunk"]
        config.max_attention_size = said["chunk"] ** 2
        self._tokenizer = ExLlamaV2Tokenizer(config)
        model = ExLlamaV2(config)
        cache = ExLlamaV2Cache(model, max_seq_len=said["cache"], lazy=True)
        model.load_autosplit(cache, last_id_only=True)
        self._generator = ExLlamaV2DynamicGenerator(
            model=model,
            cache=cache,
            tokenizer=self._tokenizer,
            max_batch_size=said["streams"] if said["paged"] else 1,
            max_chunk_size=said["chunk"],
            max_q_size=1,
            paged=said["paged"],
        )
        self._generator.warmup()
        return {}

    def _generate(self, said: dict[str, Any]) -> dict[str, Any]:
        """Return how many tokens came and how long it took."""
        began = time.perf_counter()
        for prompt, length in zip(said["prompts"], said["lengths"], strict=True):
            ids = self._tokenizer.encode(" ".join([prompt] * length))[:, :length]
            self._generator.enqueue(
                ExLlamaV2DynamicJob(
                    input_ids=ids,
                    max_new_tokens=said["tokens"],
                    gen_settings=ExLlamaV2Sampler.Settings.greedy(),
                )
            )
        came = 0
        while self._generator.num_remaining_jobs():
            came += sum(
                result["new_tokens"] for result in self._generator.iterate() if result["eos"]
            )
        return {"tokens": came, "secs": time.perf_counter() - began}


if __name__ == "__main__":
    answer(Bare().asked)
