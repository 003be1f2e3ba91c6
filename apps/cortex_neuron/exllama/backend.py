"""The seam to an inference library: a loaded model that works on jobs, a step at a time.

Everything here is called on one thread, which belongs to the backend alone. No type of a library
comes through: a second library needs its own backend and nothing else.
"""

from collections.abc import Callable
from typing import Protocol

from cortex_neuron.exllama.jobs import Job, JobEvent, Limits

Report = Callable[[int, int], None]
"""Told how far a load is: modules done, modules in all."""


class Backend(Protocol):
    """A loaded model."""

    @property
    def limits(self) -> Limits:
        """What it can hold."""

    @property
    def free_pages(self) -> int:
        """Pages of the cache that no running job holds."""

    def submit(self, ticket: int, job: Job) -> None:
        """Take a job in; it starts when it has room. `ticket` names it and is never used again."""

    def busy(self) -> bool:
        """Tell whether a step would do anything."""

    def step(self) -> list[tuple[int, JobEvent]]:
        """Do one forward pass of every running job; return what came of it, by ticket.

        After an exception nothing is known of any job: call `reset`.
        """

    def cancel(self, ticket: int) -> None:
        """Give up a job and its room; one that has ended, or never was, is no matter."""

    def reset(self) -> None:
        """Forget every job, and what the cache remembers."""

    def close(self) -> None:
        """Let go of the model and its memory."""
