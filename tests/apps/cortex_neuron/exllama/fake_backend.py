"""A backend without a model: says one scripted text to everybody, and fails when it is told to."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cortex_neuron.exllama.jobs import (
    Ended,
    EndReason,
    Generated,
    Job,
    JobEvent,
    Limits,
    Prefilled,
    Started,
    TokenLogprob,
)

LIMITS = Limits(context=64, cache=256, page=16, slots=2)


@dataclass(slots=True)
class FakeBackend:
    """Generates `script` for every job, a token a step, `slots` jobs at a time.

    While `gate` is closed no step ends; a step takes `step_secs`. `failures` are raised by the next
    steps, one each, `failures_at` by the steps of these numbers. `threads` ever called it.
    """

    script: Sequence[int]
    limits: Limits = LIMITS
    failures: list[Exception] = field(default_factory=list)
    failures_at: dict[int, Exception] = field(default_factory=dict)
    step_secs: float = 0.0
    steps: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    waiting: dict[int, Job] = field(default_factory=dict)
    said: dict[int, int] = field(default_factory=dict)
    seen: list[Job] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    resets: int = 0
    closed: bool = False
    stepping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.threads.add(threading.get_ident())

    @property
    def free_pages(self) -> int:
        """As many as there are, less one for each job."""
        return self.limits.cache // self.limits.page - len(self.waiting)

    def submit(self, ticket: int, job: Job) -> None:
        """Take a job in; a prompt that begins with 13 is refused."""
        self.threads.add(threading.get_ident())
        if job.prompt[0] == 13:
            raise AssertionError("thirteen")
        self.waiting[ticket] = job
        self.seen.append(job)

    def busy(self) -> bool:
        """Tell whether there are jobs."""
        return bool(self.waiting)

    def step(self) -> list[tuple[int, JobEvent]]:
        """Say one token of the first jobs."""
        self.stepping.set()
        if not self.gate.wait(10):
            raise AssertionError("the gate stayed closed")
        time.sleep(self.step_secs)
        self.steps += 1
        if self.failures:
            raise self.failures.pop(0)
        if self.steps in self.failures_at:
            raise self.failures_at[self.steps]
        events: list[tuple[int, JobEvent]] = []
        for ticket, job in list(self.waiting.items())[: self.limits.slots]:
            at = self.said.setdefault(ticket, 0)
            if not at:
                events += [(ticket, Prefilled(len(job.prompt), len(job.prompt)))]
                events += [(ticket, Started(len(job.prompt) // 2))]
            token = self.script[at % len(self.script)]
            if token in job.stop_tokens:
                events.append((ticket, Ended(EndReason.STOP_TOKEN, at + 1)))
                del self.waiting[ticket]
                continue
            odds = () if job.top_logprobs is None else (TokenLogprob(-0.5, ((token, -0.5),)),)
            events.append((ticket, Generated((token,), odds)))
            self.said[ticket] = at + 1
            if at + 1 == job.max_tokens:
                events.append((ticket, Ended(EndReason.MAX_TOKENS, at + 1)))
                del self.waiting[ticket]
        return events

    def cancel(self, ticket: int) -> None:
        """Forget a job."""
        if self.waiting.pop(ticket, None) is not None:
            self.cancelled.append(ticket)

    def reset(self) -> None:
        """Forget every job."""
        self.resets += 1
        self.waiting.clear()

    def close(self) -> None:
        """Be gone."""
        self.closed = True
