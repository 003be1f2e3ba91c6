"""The real exllamav2 inside this process: engines, jobs, and what came of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortex_neuron.exllama.engine_thread import EngineThread
from cortex_neuron.exllama.jobs import Ended, Generated, Job, JobEvent, Started, TokenLogprob
from cortex_neuron.exllama.plan import Plan
from cortex_neuron.exllama.sampling import Sampling

GREEDY = Sampling(temperature=0)
PROMPT = tuple(range(40, 100))


def plan(folder: Path, **more: Any) -> Plan:
    """Return a plan with small buffers."""
    small = {"context": 1024, "cache": 2048, "chunk": 256, "slots": 4}
    return Plan(path=str(folder), **{**small, **more})


def job(prompt: Sequence[int] = PROMPT, max_tokens: int = 16, **more: Any) -> Job:
    """Return a greedy job."""
    return Job(**{"prompt": tuple(prompt), "max_tokens": max_tokens, "sampling": GREEDY, **more})


@dataclass(slots=True)
class Outcome:
    """What came of a job."""

    events: list[JobEvent] = field(default_factory=list)

    @property
    def tokens(self) -> list[int]:
        """The tokens."""
        return [token for one in self._generated for token in one.tokens]

    @property
    def logprobs(self) -> list[TokenLogprob]:
        """Their log probabilities."""
        return [odds for one in self._generated for odds in one.logprobs]

    @property
    def cached(self) -> int:
        """Tokens of the prompt that were known."""
        (started,) = [one for one in self.events if isinstance(one, Started)]
        return started.cached

    @property
    def end(self) -> Ended:
        """How it ended."""
        last = self.events[-1]
        assert isinstance(last, Ended), last
        return last

    @property
    def _generated(self) -> list[Generated]:
        return [one for one in self.events if isinstance(one, Generated)]


class Bench:
    """Makes engines and closes them."""

    def __init__(self) -> None:
        self._engines: list[EngineThread] = []
        self.backends: list[Any] = []
        self.progress: list[tuple[int, int]] = []

    def engine(self, loading: Plan) -> EngineThread:
        """Return an engine with the model of a plan."""
        from cortex_neuron.exllama.v2.backend import ExLlamaV2Backend  # noqa: PLC0415

        def make() -> ExLlamaV2Backend:
            made = ExLlamaV2Backend(loading, lambda done, of: self.progress.append((done, of)))
            self.backends.append(made)
            return made

        engine = EngineThread(make, max_waiting=64)
        engine.load()
        self._engines.append(engine)
        return engine

    async def close(self) -> None:
        """Close all engines."""
        for engine in self._engines:
            await engine.close()


async def run(engine: EngineThread, one: Job) -> Outcome:
    """Return what comes of a job."""
    async with engine.running(one) as events:
        return Outcome([event async for event in events])
