"""As much of exllamav3 as the adapter uses, without a model: the next token is the one after.

Every signature here is the real one; a test holds it to that.
"""

# The real signatures are long.
# ruff: noqa: PLR0917

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch

VOCABULARY = 64


class Config:
    """What a folder says."""

    def __init__(self, directory: str) -> None:
        self.directory, self.vocab_size = directory, VOCABULARY

    @staticmethod
    def from_directory(directory: str, **kwargs: Any) -> "Config":
        """Read a folder."""
        return Config(directory)


class Tokenizer:
    """Words by their numbers; the model named `other` has others."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @staticmethod
    def from_config(config: Config) -> "Tokenizer":
        """Return the words of a model."""
        return Tokenizer(config)

    def get_id_to_piece_list(self, include_special_tokens: bool = False) -> list[str]:
        """Return the words."""
        other = Path(self.config.directory).name == "other"
        return [f"{'o' if other else 'w'}{token}" for token in range(VOCABULARY)]


class Model:
    """A model; its cache must be there before it is loaded."""

    def __init__(self, config: Config) -> None:
        self.config, self.cached = config, False
        self.loaded: dict[str, Any] = {}

    @staticmethod
    def from_config(config: Config, component: str = "text", **kwargs: Any) -> "Model":
        """Return the model of a folder."""
        return Model(config)

    def load(self, *args: Any, **kwargs: Any) -> None:
        """Load."""
        assert self.cached
        for number in range(4):
            kwargs["callback"](number, 3)
        self.loaded = {name: one for name, one in kwargs.items() if name != "callback"}

    def unload(self) -> None:
        """Be gone."""
        self.loaded = {}


class CacheLayer_fp16:  # noqa: N801  # exllamav3's own name
    """In 16 bits."""


class CacheLayer_quant:  # noqa: N801
    """In fewer."""


class Cache:
    """Room for tokens."""

    def __init__(
        self,
        model: Model,
        max_num_tokens: int,
        layer_type: Any = None,
        max_batch_size: int = 16,
        max_history: int = 0,
        recurrent_dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        model.cached = True
        self.max_num_tokens, self.layer_type, self.more = max_num_tokens, layer_type, kwargs


class Filter:
    """What a grammar inherits from."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        trigger_token: int | None,
        prefix_str: str | None,
        eos_after_completed: bool,
    ) -> None:
        self.vocab_size = VOCABULARY

    def feed(self, token: int) -> bool:
        """Go on."""
        self.accept_token(token)
        return self.is_completed()

    def reset(self) -> None:
        """Begin."""
        raise NotImplementedError

    def accept_token(self, token: int) -> None:
        """Accept."""
        raise NotImplementedError

    def get_next_logit_mask(self) -> Any:
        """Mask."""
        raise NotImplementedError

    def is_completed(self) -> bool:
        """End."""
        raise NotImplementedError


class SS_Base:  # noqa: N801
    """A step of sampling: what it was made with can be read."""


class SS_Argmax(SS_Base):  # noqa: N801
    """The likeliest."""


class SS_Sample(SS_Base):  # noqa: N801
    """One of them."""


class SS_Temperature(SS_Base):  # noqa: N801
    """Heat."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature


class SS_TopK(SS_Base):  # noqa: N801
    """So many."""

    def __init__(self, top_k: int) -> None:
        self.top_k = top_k


class SS_TopP(SS_Base):  # noqa: N801
    """So much."""

    def __init__(self, top_p: float) -> None:
        self.top_p = top_p


class SS_MinP(SS_Base):  # noqa: N801
    """At least so likely."""

    def __init__(self, min_p: float) -> None:
        self.min_p = min_p


class SS_XTC(SS_Base):  # noqa: N801
    """Not the likeliest."""

    def __init__(
        self,
        probability: float,
        threshold: float,
        protected_token_ids: Any = None,
        tokenizer: Any = None,
    ) -> None:
        self.probability = probability


class SS_RepP(SS_Base):  # noqa: N801
    """Not again."""

    def __init__(
        self, rep_p: float = 1.0, sustain_range: int = int(10e7), decay_range: int = 0
    ) -> None:
        self.rep_p, self.sustain_range = rep_p, sustain_range


class SS_PresFreqP(SS_Base):  # noqa: N801
    """Not so often."""

    def __init__(
        self,
        pres_p: float = 0.0,
        freq_p: float = 0.0,
        sustain_range: int = int(10e7),
        decay_range: int = 0,
    ) -> None:
        self.pres_p, self.freq_p = pres_p, freq_p


class SS_DRY(SS_Base):  # noqa: N801
    """Not the same again."""

    def __init__(
        self,
        dry_multiplier: float = 0.0,
        dry_base: float = 1.75,
        dry_allowed_length: int = 2,
        dry_range: int = 0,
        dry_sequence_breakers: Any = None,
        tokenizer: Any = None,
    ) -> None:
        self.dry_multiplier, self.dry_sequence_breakers = dry_multiplier, dry_sequence_breakers


class SS_LogitBias(SS_Base):  # noqa: N801
    """More or less of a token."""

    def __init__(self, logit_bias: dict[int, float]) -> None:
        self.logit_bias = logit_bias


class CustomSampler:
    """A chain of steps."""

    def __init__(self, steps: list[SS_Base]) -> None:
        self.steps = steps


class Job:
    """One answer."""

    def __init__(
        self,
        input_ids: Any,
        max_new_tokens: int | None = None,
        min_new_tokens: int = 0,
        max_skips: int | None = 4,
        sampler: Any = None,
        seed: int | None = None,
        stop_conditions: Any = None,
        decode_special_tokens: bool = False,
        return_top_tokens: int = 0,
        return_logits: bool = False,
        return_probs: bool = False,
        filters: Any = None,
        token_healing: bool = False,
        identifier: object | None = None,
        banned_strings: Any = None,
        embeddings: Any = None,
        max_rq_tokens: int | None = None,
        stop_on_loop: Any = None,
        rq_state: Any = None,
        **kwargs: Any,
    ) -> None:
        self.tokens = [int(one) for one in input_ids[0]]
        self.max_new_tokens = max_new_tokens or 1
        self.sampler, self.seed, self.filters = sampler, seed, filters or []
        self.stops, self.identifier = set(stop_conditions or ()), identifier
        self.cached_pages, self.cached_tokens, self.new_tokens = 1, 3, 0


class Generator:
    """Answers jobs. `made` are all generators there ever were."""

    made: ClassVar[list["Generator"]] = []

    def __init__(
        self,
        model: Model,
        cache: Cache,
        tokenizer: Tokenizer,
        max_batch_size: int = 256,
        max_chunk_size: int = 2048,
        shared_chunk_size: int | None = None,
        prefill_cooldown: int | None = 4,
        max_q_size: int = 8,
        draft_model: Any = None,
        draft_cache: Any = None,
        num_draft_tokens: int | None = None,
        show_visualizer: bool = False,
        enable_defrag: bool = True,
        cpu_cache_size: int = 0,
        disk_cache_dir: str | None = None,
        disk_cache_size: int = 50 * 1024**3,
        disk_cache_flush_on_idle: bool = True,
        disk_cache_checkpoint_interval: int = 4096,
        disk_cache_write_interval: float = 2.0,
        recurrent_cache_size: int = 4 * 1024**3,
        recurrent_checkpoint_interval: int | None = None,
        recurrent_checkpoint_interval_pp: int = 32768,
        ngram_match_min: int = 0,
        dynamic_draft_tokens: bool = False,
        draft_confidence: float = 0.4,
        record_draft_stats: bool = False,
        ngram_corpus: str | None = None,
        hybrid_draft_tokens: int = 0,
        draft_max_rows: int = 0,
        sparse_draft_head: int = 0,
        **kwargs: Any,
    ) -> None:
        self.draft_model, self.num_draft_tokens = draft_model, num_draft_tokens
        self.ngram_match_min, self.closed = ngram_match_min, False
        self.jobs: list[Job] = []
        self.failures: dict[int, Exception] = {}
        self.pagetable = SimpleNamespace(num_unreferenced_pages=lambda: 4 - len(self.jobs))
        self.made.append(self)

    def enqueue(self, job: Job) -> int:
        """Take a job in."""
        self.jobs.append(job)
        return 0

    def cancel(self, job: Job) -> None:
        """Forget a job."""
        if job in self.jobs:
            self.jobs.remove(job)

    def iterate(self) -> list[dict[str, Any]]:
        """Give every job its next token; one whose number is in `failures` fails by itself."""
        return [self._next(job) for job in tuple(self.jobs)]

    def close(self) -> None:
        """Be gone."""
        self.closed = True

    def _next(self, job: Job) -> dict[str, Any]:
        if (error := self.failures.pop(len(job.tokens), None)) is not None:
            self.jobs.remove(job)
            return {"job": job, "stage": "error", "eos": True, "error": error}
        token = (job.tokens[-1] + 1) % VOCABULARY
        for one in job.filters:
            words = one.get_next_logit_mask()[0].tolist()
            bits = sum((word & 0xFFFFFFFF) << 32 * at for at, word in enumerate(words))
            token = (bits & -bits).bit_length() - 1
            one.feed(token)
        job.tokens.append(token)
        job.new_tokens += 1
        stopped = token in job.stops
        full = job.new_tokens == job.max_new_tokens
        told = {"token_ids": torch.tensor([[token]])}
        result: dict[str, Any] = {"job": job, "stage": "streaming", "eos": stopped or full}
        if stopped or full:
            self.jobs.remove(job)
            result["eos_reason"] = "stop_token" if stopped else "max_new_tokens"
        if stopped:
            result["held"] = told
        else:
            result |= told
        return result
