"""A made-up day: who asks for what and when, drawn once, so that every policy meets the same."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import accumulate
from math import pi, sin
from typing import Protocol

from cortex_router.simulation.arrivals import Arrival, Turn


class Randomness(Protocol):
    """What is drawn from; `random.Random(seed)` is one."""

    def random(self) -> float:
        """Return a number from 0 up to, not including, 1."""

    def expovariate(self, lambd: float) -> float:
        """Return a number of mean 1 / `lambd`, exponentially distributed."""

    def choices(
        self, population: Sequence[str], *, cum_weights: Sequence[float], k: int
    ) -> list[str]:
        """Return `k` of `population`, drawn by weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """The rate swings around its mean by this part of it, once in a period."""

    swing: float = 0.0
    period_secs: float = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Now and then so many requests for one model come within a short time."""

    every_secs: float
    requests: int
    length_secs: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """Conversations: this part of what arrives begins one.

    All of them begin with the same `shared_tokens`; each goes on with its own first message and
    grows turn by turn.
    """

    part: float
    turns: int = 6
    think_secs: float = 10.0
    shared_tokens: int = 10_000
    first_tokens: int = 500
    grows_tokens: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What arrives. Tokens and pauses are means of exponential distributions.

    The n-th of the models is asked for in proportion to 1 / n ** `zipf`.
    """

    requests: int
    per_sec: float
    zipf: float = 1.0
    prompt_tokens: int = 800
    completion_tokens: int = 200
    day: Day = field(default_factory=Day)
    bursts: Bursts | None = None
    sessions: Sessions | None = None


def arrivals(
    workload: Workload, models: Sequence[str], randomness: Randomness
) -> Iterator[Arrival]:
    """Yield what arrives, in order, until `workload.requests` (turns counted) have been planned."""
    draw = _Draw(workload, models, randomness)
    left = workload.requests
    for at, model, single in merge(draw.steady(), draw.bursts()):
        if left <= 0:
            return
        arrival = draw.arrival(at, model, left, single=single)
        left -= 1 + len(arrival.then)
        yield arrival


class _Draw:
    def __init__(self, workload: Workload, models: Sequence[str], randomness: Randomness) -> None:
        self._workload, self._models, self._randomness = workload, models, randomness
        self._weights = list(accumulate(1.0 / n**workload.zipf for n in range(1, len(models) + 1)))
        self._begun = 0

    def steady(self) -> Iterator[tuple[float, str, bool]]:
        """Yield when somebody comes, for which model: a Poisson stream with the day's swing."""
        workload, draw = self._workload, self._randomness
        peak = workload.per_sec * (1.0 + workload.day.swing)
        at = 0.0
        while True:
            at += draw.expovariate(peak)
            swing = workload.day.swing * sin(2 * pi * at / workload.day.period_secs)
            if draw.random() * peak <= workload.per_sec * (1.0 + swing):
                yield at, self._model(), False

    def bursts(self) -> Iterator[tuple[float, str, bool]]:
        """Yield the requests of bursts: each is over before the next one begins."""
        if (bursts := self._workload.bursts) is None:
            return
        at = 0.0
        while True:
            at += self._randomness.expovariate(1.0 / bursts.every_secs)
            model = self._model()
            offsets = sorted(
                self._randomness.random() * bursts.length_secs for _ in range(bursts.requests)
            )
            yield from ((at + offset, model, True) for offset in offsets)
            at += bursts.length_secs

    def arrival(self, at: float, model: str, left: int, *, single: bool) -> Arrival:
        """Return the request that begins at `at`: one by itself, or a conversation's first."""
        workload, sessions = self._workload, self._workload.sessions
        if single or sessions is None or self._randomness.random() >= sessions.part:
            return Arrival(
                at=at,
                model=model,
                prompt_tokens=self._tokens(workload.prompt_tokens),
                completion_tokens=self._tokens(workload.completion_tokens),
            )
        self._begun += 1
        prompt = sessions.shared_tokens + self._tokens(sessions.first_tokens)
        answer = self._tokens(workload.completion_tokens)
        first, turns, size = (prompt, answer), list[Turn](), prompt + answer
        for _ in range(min(sessions.turns, left) - 1):
            size += self._tokens(sessions.grows_tokens)
            answer = self._tokens(workload.completion_tokens)
            pause = self._randomness.expovariate(1.0 / sessions.think_secs)
            turns.append(Turn(pause, size, answer))
            size += answer
        return Arrival(
            at=at,
            model=model,
            prompt_tokens=first[0],
            completion_tokens=first[1],
            session=f"s{self._begun}",
            shared_tokens=sessions.shared_tokens,
            then=tuple(turns),
        )

    def _model(self) -> str:
        return self._randomness.choices(self._models, cum_weights=self._weights, k=1)[0]

    def _tokens(self, mean: int) -> int:
        return 1 + int(self._randomness.expovariate(1.0 / mean))
