"""A model that runs in exllamav3's generator, behind the seam of a backend.

Its jobs are nearly those of exllamav2: it counts exactly where it guesses, ends a job that fails by
itself, and keeps a generator of a cache from being used once there is a newer one.
"""

import gc
from dataclasses import dataclass
from typing import Any, Final

import torch
from exllamav3 import Generator
from exllamav3 import Job as ExLlamaV3Job

from cortex_neuron.exllama.backend import Report
from cortex_neuron.exllama.faults import fault_of
from cortex_neuron.exllama.jobs import Broke, Job, JobEvent, Limits
from cortex_neuron.exllama.plan import PAGE, Plan
from cortex_neuron.exllama.stepping import Running, as_api_error, read_result
from cortex_neuron.exllama.v3.loading import load
from cortex_neuron.exllama.v3.masking import MaskFilter
from cortex_neuron.exllama.v3.sampler import LACKS, Sampler
from cortex_neuron.faults import Fault

#: So many tokens of the text so far must recur before what followed them is guessed.
_SHORTEST_RECURRENCE: Final = 2


@dataclass(slots=True, kw_only=True)
class _Masked(Running):
    """A job with the filter that keeps it to its grammar."""

    mask: MaskFilter | None


class ExLlamaV3Backend:
    """One model."""

    def __init__(self, plan: Plan, report: Report) -> None:
        self._plan = plan
        self._loaded = load(plan, report)
        self._running: dict[int, _Masked] = {}
        self._sampler = Sampler(self._loaded.tokenizer)
        self.limits = Limits(
            context=plan.context,
            # It writes one token further than it tells, and what it guesses.
            cache=plan.cache - plan.guesses - 1,
            page=PAGE,
            slots=plan.slots or 1,
            lacks=LACKS,
        )
        self._generator = self._new_generator()

    @property
    def free_pages(self) -> int:
        """Pages of the cache that no running job holds."""
        return int(self._generator.pagetable.num_unreferenced_pages())

    def submit(self, ticket: int, job: Job) -> None:
        """Queue a job."""
        mask = None
        if job.mask is not None:
            mask = MaskFilter(self._loaded.tokenizer, job.mask, job.stop_tokens)
        made = ExLlamaV3Job(
            input_ids=torch.tensor([job.prompt], dtype=torch.long),
            max_new_tokens=job.max_tokens,
            min_new_tokens=job.min_tokens,
            sampler=self._sampler.chain(job.sampling),
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
        """Iterate once. Raises what made a job fail where that reaches further than the job."""
        events: list[tuple[int, JobEvent]] = []
        for result in self._generator.iterate():
            ticket = self._ticket_of(result)
            if ticket is None:
                continue
            running = self._running[ticket]
            if result["stage"] == "error":
                if fault_of(result["error"]) is not Fault.CRASHED:
                    raise result["error"]
                del self._running[ticket]
                events.append((ticket, Broke(as_api_error(result["error"]))))
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
        """Go on with a new generator: nothing is known of the old one's cache."""
        self._running.clear()
        self._dismiss_generator()
        self._generator = self._new_generator()

    def close(self) -> None:
        """Unload the model."""
        self._running.clear()
        self._dismiss_generator()
        self._loaded.unload()

    def _ticket_of(self, result: dict[str, Any]) -> int | None:
        """Return whose result it is; one of a failure is known by its job alone."""
        for ticket, running in self._running.items():
            if running.made is result["job"]:
                return ticket
        return None

    def _new_generator(self) -> Generator:
        plan, loaded = self._plan, self._loaded
        by_ngrams = bool(plan.guesses) and plan.draft is None
        return Generator(
            model=loaded.model,
            cache=loaded.cache,
            tokenizer=loaded.tokenizer,
            max_batch_size=self.limits.slots,
            max_chunk_size=plan.chunk,
            draft_model=loaded.draft_model,
            draft_cache=loaded.draft_cache,
            num_draft_tokens=plan.guesses or None,
            ngram_match_min=_SHORTEST_RECURRENCE if by_ngrams else 0,
        )

    def _dismiss_generator(self) -> None:
        """Let go of the generator, its buffers and its threads."""
        self._generator.close()
        del self._generator
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
