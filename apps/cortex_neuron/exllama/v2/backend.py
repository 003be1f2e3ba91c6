"""A model that runs in exllamav2's dynamic generator, behind the seam of a backend.

What the generator asserts or forgets is known before a job comes here (`admitting`).
"""

import gc
from dataclasses import dataclass
from typing import Final

import torch
from exllamav2.generator import ExLlamaV2DynamicGenerator, ExLlamaV2DynamicJob

from cortex_neuron.exllama.backend import Report
from cortex_neuron.exllama.jobs import Broke, Job, JobEvent, Limits
from cortex_neuron.exllama.plan import PAGE, Plan
from cortex_neuron.exllama.stepping import Running, as_api_error, read_result
from cortex_neuron.exllama.v2.loading import load
from cortex_neuron.exllama.v2.masking import MaskFilter
from cortex_neuron.exllama.v2.sampler import Sampler

_LONGEST_GUESS: Final = 7


@dataclass(slots=True, kw_only=True)
class _Masked(Running):
    """A job with the filter that keeps it to its grammar."""

    mask: MaskFilter | None


class ExLlamaV2Backend:
    """One model."""

    def __init__(self, plan: Plan, report: Report) -> None:
        self._guesses = min(plan.guesses, _LONGEST_GUESS)
        self._by_ngrams = bool(self._guesses) and plan.draft is None
        self._loaded = load(plan, report)
        self._running: dict[int, _Masked] = {}
        self._sampler = Sampler(self._loaded.tokenizer, self._loaded.config.vocab_size)
        self._slots = (plan.slots or 1) if self._loaded.paged else 1
        self.limits = Limits(
            context=plan.context,
            # What is guessed needs room, too.
            cache=plan.cache - self._guesses,
            page=PAGE if self._loaded.paged else plan.cache,
            slots=self._slots,
        )
        self._generator = self._new_generator()
        self._generator.warmup()

    @property
    def free_pages(self) -> int:
        """Pages of the cache that no running job holds."""
        return len(self._generator.unreferenced_pages)

    def submit(self, ticket: int, job: Job) -> None:
        """Queue a job."""
        loaded = self._loaded
        mask = None
        if job.mask is not None:
            mask = MaskFilter(loaded.model, loaded.tokenizer, job.mask, job.stop_tokens)
        made = ExLlamaV2DynamicJob(
            input_ids=torch.tensor([job.prompt], dtype=torch.long),
            # It stops so many tokens early where it guesses.
            max_new_tokens=job.max_tokens + self._guesses,
            min_new_tokens=job.min_tokens,
            gen_settings=self._sampler.settings(job.sampling, len(job.prompt)),
            seed=job.seed,
            stop_conditions=sorted(job.stop_tokens),
            decode_special_tokens=True,
            return_logits=job.top_logprobs is not None,
            filters=[] if mask is None else [mask],
            identifier=ticket,
        )
        self._generator.enqueue(made)
        self._running[ticket] = _Masked(job=job, made=made, mask=mask)

    def busy(self) -> bool:
        """Tell whether there are jobs."""
        return bool(self._running)

    def step(self) -> list[tuple[int, JobEvent]]:
        """Iterate once."""
        events: list[tuple[int, JobEvent]] = []
        for result in self._generator.iterate():
            ticket = result["identifier"]
            if (running := self._running.get(ticket)) is None:
                continue
            vocabulary = self._loaded.config.vocab_size
            events += ((ticket, event) for event in read_result(running, result, vocabulary))
            if result["eos"]:
                del self._running[ticket]
        for ticket, running in tuple(self._running.items()):
            if running.mask is not None and running.mask.failure is not None:
                self.cancel(ticket)
                events.append((ticket, Broke(as_api_error(running.mask.failure))))
        return events

    def cancel(self, ticket: int) -> None:
        """Take a job out, wherever it is."""
        if (running := self._running.pop(ticket, None)) is not None:
            self._generator.cancel(running.made)

    def reset(self) -> None:
        """Go on with a new generator: an old one that failed would fail again."""
        self._running.clear()
        self._dismiss_generator()
        self._generator = self._new_generator()

    def close(self) -> None:
        """Unload the model."""
        self._running.clear()
        self._dismiss_generator()
        self._loaded.unload()

    def _new_generator(self) -> ExLlamaV2DynamicGenerator:
        loaded = self._loaded
        generator = ExLlamaV2DynamicGenerator(
            model=loaded.model,
            cache=loaded.cache,
            tokenizer=loaded.tokenizer,
            max_batch_size=self._slots,
            max_chunk_size=loaded.config.max_input_len,
            max_q_size=self._guesses + 1,
            draft_model=loaded.draft_model,
            draft_cache=loaded.draft_cache,
            num_draft_tokens=self._guesses,
            use_ngram_draft=self._by_ngrams,
            paged=loaded.paged,
        )
        if loaded.loras:
            generator.set_loras(loaded.loras)
        return generator

    def _dismiss_generator(self) -> None:
        """Let go of the generator, its buffers and its threads."""
        for pool in (self._generator.sampling_pool, self._generator.filter_pool):
            pool.shutdown(wait=False, cancel_futures=True)
        del self._generator
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
