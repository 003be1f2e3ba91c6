"""The generator: a page is 256 tokens, and what it did last is in its attributes."""

# The real signatures are long.
# ruff: noqa: PLR0917

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import torch

#: A token that is half a character: the generator holds it back until the next one.
HALF = 40
PAGE = 256


class ExLlamaV2Sampler:
    """How tokens are drawn."""

    @dataclass
    class Settings:
        """exllamav2's own defaults, which are not neutral."""

        token_repetition_penalty: float = 1.025
        token_repetition_range: int = -1
        token_frequency_penalty: float = 0.0
        token_presence_penalty: float = 0.0
        temperature: float = 0.8
        smoothing_factor: float = 0.0
        top_k: int = 50
        top_p: float = 0.8
        top_a: float = 0.0
        min_p: float = 0
        tfs: float = 0
        typical: float = 0
        temperature_last: bool = False
        mirostat: bool = False
        mirostat_tau: float = 1.5
        mirostat_eta: float = 0.1
        token_bias: Any = None
        dry_allowed_length: int = 2
        dry_base: float = 1.75
        dry_multiplier: float = 0.0
        dry_sequence_breakers: set[int] | None = None
        dry_range: int = 0
        dry_max_ngram: int = 20
        xtc_probability: float = 0.0
        xtc_threshold: float = 0.1

    get_dry_default_sequence_breaker_tokens = SimpleNamespace(cache_clear=lambda: None)
    get_default_xtc_mask_tokens = SimpleNamespace(cache_clear=lambda: None)
    get_xtc_mask_tensor = SimpleNamespace(cache_clear=lambda: None)


class ExLlamaV2DynamicJob:
    """One answer."""

    def __init__(
        self,
        input_ids: Any,
        max_new_tokens: int,
        min_new_tokens: int = 0,
        max_skips: int | None = 4,
        gen_settings: Any = None,
        seed: int | None = None,
        stop_conditions: Any = None,
        decode_special_tokens: bool = False,
        return_top_tokens: int = 0,
        return_logits: bool = False,
        return_probs: bool = False,
        filters: Any = None,
        filter_prefer_eos: bool = False,
        token_healing: bool = False,
        identifier: object | None = None,
        banned_strings: Any = None,
        embeddings: Any = None,
        **kwargs: Any,
    ) -> None:
        assert input_ids.shape[-1] > 0, "Input IDs cannot be empty."
        self.tokens = [int(one) for one in input_ids[0]]
        self.prompt = len(self.tokens)
        self.max_new_tokens, self.min_new_tokens = max_new_tokens, min_new_tokens
        self.gen_settings, self.seed = gen_settings, seed
        self.stops, self.filters = set(stop_conditions or ()), filters or []
        self.return_logits, self.identifier = return_logits, identifier
        self.cached_pages = self.cached_tokens = 0
        self.new_tokens = 0
        self.held: list[int] = []


class ExLlamaV2DynamicGenerator:
    """Answers jobs. `made` are all generators there ever were."""

    made: ClassVar[list["ExLlamaV2DynamicGenerator"]] = []

    def __init__(
        self,
        model: Any,
        cache: Any,
        tokenizer: Any,
        max_batch_size: int | None = None,
        max_seq_len: int | None = None,
        max_chunk_size: int | None = None,
        max_q_size: int = 8,
        draft_model: Any = None,
        draft_cache: Any = None,
        num_draft_tokens: int = 4,
        use_ngram_draft: bool = False,
        max_ngram: int = 4,
        max_sampling_threads: int = 16,
        min_sampling_threads: int = 3,
        paged: bool = True,
        filter_background_eval: bool = True,
        **kwargs: Any,
    ) -> None:
        self.model, self.cache, self.paged = model, cache, paged
        self.max_batch_size = max_batch_size or 1
        self.num_draft_tokens = num_draft_tokens if draft_model or use_ngram_draft else 0
        assert self.num_draft_tokens < max_q_size
        self.max_pages = cache.max_seq_len // PAGE if paged else 1
        self.pending_jobs: list[ExLlamaV2DynamicJob] = []
        self.active_jobs: list[ExLlamaV2DynamicJob] = []
        self.unreferenced_pages = dict.fromkeys(range(self.max_pages))
        self.current_loras: Any = None
        self.sampling_pool, self.filter_pool = _Pool(), _Pool()
        self.failures: list[Exception] = []
        self.known: list[list[int]] = []
        self.made.append(self)

    def warmup(self) -> None:
        """Nothing is cold."""

    def set_loras(self, loras: Any) -> None:
        """Lay adapters over every answer."""
        self.current_loras = loras

    def enqueue(self, job: ExLlamaV2DynamicJob) -> int:
        """Take a job in."""
        assert self._pages(job) <= self.max_pages, "Job requires too many pages"
        self.pending_jobs.append(job)
        return 0

    def cancel(self, job: ExLlamaV2DynamicJob) -> None:
        """Forget a job."""
        for jobs in (self.pending_jobs, self.active_jobs):
            if job in jobs:
                jobs.remove(job)
        self._count()

    def iterate(self) -> list[dict[str, Any]]:
        """Give every active job its next token."""
        results: list[dict[str, Any]] = []
        while self.pending_jobs and len(self.active_jobs) < self.max_batch_size:
            job = self.pending_jobs.pop(0)
            self.active_jobs.append(job)
            job.cached_tokens = max(
                (len(one) for one in self.known if job.tokens[: len(one)] == one), default=0
            )
            self.known.append(job.tokens[:-1])
            results.append(
                {"job": job, "stage": "started", "eos": False, "identifier": job.identifier}
            )
            done = job.prompt - 1
            results.append(
                {
                    "job": job,
                    "stage": "prefill",
                    "eos": False,
                    "curr_progress": done,
                    "max_progress": done,
                    "identifier": job.identifier,
                }
            )
        self._count()
        if self.failures:
            raise self.failures.pop(0)
        results += [self._next(job) for job in tuple(self.active_jobs)]
        self._count()
        return results

    def _next(self, job: ExLlamaV2DynamicJob) -> dict[str, Any]:
        logits = torch.zeros(64)
        logits[(job.tokens[-1] + 1) % 64] = 4.0
        if job.new_tokens < job.min_new_tokens:
            logits[sorted(job.stops)] = -1e30
        for one in job.filters:
            one.prepare_logit_mask()
            logits = one.mask_logits(logits)
        token = int(logits.argmax())
        for one in job.filters:
            one.feed(torch.tensor([[token]]))
        job.tokens.append(token)
        job.new_tokens += 1
        job.held.append(token)
        stopped = token in job.stops
        full = job.new_tokens >= job.max_new_tokens - self.num_draft_tokens
        result: dict[str, Any] = {
            "job": job,
            "stage": "streaming",
            "eos": stopped or full,
            "identifier": job.identifier,
        }
        told = self._told(job)
        if stopped or full:
            self.active_jobs.remove(job)
            result["eos_reason"] = "stop_token" if stopped else "max_new_tokens"
            result |= {"new_tokens": job.new_tokens, "cached_tokens": job.cached_tokens}
        if stopped:
            result["held"] = told
        elif full or token != HALF:
            result |= told
            job.held = []
        return result

    def _told(self, job: ExLlamaV2DynamicJob) -> dict[str, Any]:
        told = {"token_ids": torch.tensor([job.held])}
        if job.return_logits:
            rows = torch.zeros((1, len(job.held), 64))
            for at, token in enumerate(job.held):
                rows[0, at, token] = 4.0
            told["logits"] = rows
        return told

    def _pages(self, job: ExLlamaV2DynamicJob) -> int:
        size = PAGE if self.paged else self.cache.max_seq_len
        return -(-(job.prompt + job.max_new_tokens) // size)

    def _count(self) -> None:
        taken = sum(self._pages(job) for job in self.active_jobs)
        self.unreferenced_pages = dict.fromkeys(range(max(0, self.max_pages - taken)))


class _Pool:
    """Threads that do nothing."""

    def __init__(self) -> None:
        self.running = True

    def shutdown(self, *, wait: bool, cancel_futures: bool) -> None:
        """End them."""
        self.running = False
