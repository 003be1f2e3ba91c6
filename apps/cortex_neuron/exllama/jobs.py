"""What an engine is asked to do, and what it says while it does it: values, no engine in them."""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol, TypeAlias

from cortex_core.errors import ApiError
from cortex_neuron.exllama.sampling import Sampling


class Mask(Protocol):
    """A grammar at one place in one answer: which tokens may come next."""

    def allowed(self) -> bytes:
        """Return a bit for each token of the vocabulary, least significant first."""

    def accept(self, token: int) -> None:
        """Go on past `token`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One answer to be generated.

    `prompt` and `max_tokens` fit the engine's limits. `top_logprobs` is how many alternatives are
    told beside each token's own log probability; None tells neither. `mask` belongs to this job
    alone: it remembers where it is.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    min_tokens: int = 0
    sampling: Sampling
    seed: int | None = None
    stop_tokens: frozenset[int] = frozenset()
    top_logprobs: int | None = None
    mask: Mask | None = None


class TokenLogprob(NamedTuple):
    """Log probability of a token, and the likeliest tokens at its place, best first."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Prefilled(NamedTuple):
    """So much of the prompt is read."""

    done: int
    total: int


class Started(NamedTuple):
    """The first token is about to come; so much of the prompt was known from before."""

    cached: int


class Generated(NamedTuple):
    """The next tokens. `logprobs` has one for each, where the job wants them."""

    tokens: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()


class EndReason(Enum):
    """Why an answer ended."""

    STOP_TOKEN = "stop_token"  # noqa: S105  # a word, no secret
    MAX_TOKENS = "max_tokens"


class Ended(NamedTuple):
    """The answer is complete. `generated` counts the stop token, which is in no `Generated`."""

    reason: EndReason
    generated: int


class Broke(NamedTuple):
    """The answer cannot go on."""

    error: ApiError


JobEvent: TypeAlias = Prefilled | Started | Generated | Ended | Broke


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an engine can do, in tokens.

    `context` bounds prompt and answer of one job together; `cache` all jobs together, handed out in
    pages of `page`. `slots` is how many jobs run at once. `lacks` are the fields of sampling that
    its library does not have.
    """

    context: int
    cache: int
    page: int
    slots: int
    lacks: frozenset[str] = frozenset()
