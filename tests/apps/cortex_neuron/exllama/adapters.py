"""Adapters run against fakes of their libraries: neither torch nor any library is here."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cortex_neuron.exllama.jobs import Generated, Job, JobEvent
from cortex_neuron.exllama.sampling import Sampling

FAKES = Path(__file__).with_name("fakes")
_THEIRS = (
    "torch",
    "exllamav2",
    "exllamav3",
    "cortex_neuron.exllama.stepping",
    "cortex_neuron.exllama.v2.",
    "cortex_neuron.exllama.v3.",
)


@contextmanager
def on_fakes(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the libraries' fakes imported in their place, and all that stands on them anew."""
    kept = {name: sys.modules.pop(name) for name in tuple(sys.modules) if name.startswith(_THEIRS)}
    patch.syspath_prepend(str(FAKES))
    yield
    for name in tuple(sys.modules):
        if name.startswith(_THEIRS):
            del sys.modules[name]
    sys.modules.update(kept)


def job(*prompt: int, max_tokens: int = 4, **more: Any) -> Job:
    """Return a greedy job."""
    greedy = Sampling(temperature=0)
    return Job(**{"prompt": prompt or (1, 2), "max_tokens": max_tokens, "sampling": greedy, **more})


def finish(made: Any, *jobs: Job) -> list[list[JobEvent]]:
    """Return everything that comes of jobs."""
    found: dict[int, list[JobEvent]] = {}
    for ticket, one in enumerate(jobs):
        found[ticket] = []
        made.submit(ticket, one)
    while made.busy():
        for ticket, event in made.step():
            found[ticket].append(event)
    return list(found.values())


def tokens(events: list[JobEvent]) -> list[int]:
    """Return the tokens among events."""
    return [token for event in events if isinstance(event, Generated) for token in event.tokens]


class Only:
    """A mask that allows one token, or none, and fails when it is told to."""

    def __init__(self, token: int | None, failure: Exception | None = None) -> None:
        self.token, self.failure = token, failure
        self.accepted: list[int] = []

    def allowed(self) -> bytes:
        """Return a bit for it."""
        if self.failure is not None and self.accepted:
            raise self.failure
        return bytes(8) if self.token is None else (1 << self.token).to_bytes(8, "little")

    def accept(self, token: int) -> None:
        """Remember a token."""
        self.accepted.append(token)
