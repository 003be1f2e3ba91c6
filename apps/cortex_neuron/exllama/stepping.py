"""What a step of a dynamic generator says, as events: exllamav2's and exllamav3's are alike.

Of a result only tokens and logits are read: text is made elsewhere, the same for every library.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import torch

from cortex_core.errors import ApiError, InternalError
from cortex_neuron.exllama.jobs import (
    Ended,
    EndReason,
    Generated,
    Job,
    JobEvent,
    Prefilled,
    Started,
    TokenLogprob,
)
from cortex_neuron.exllama.plan import PAGE

log = structlog.get_logger()


@dataclass(slots=True, kw_only=True)
class Running:
    """A job, what the library made of it, and what has been told of it."""

    job: Job
    made: Any
    started: bool = False
    told: int = 0

    @property
    def cached(self) -> int:
        """Tokens of the prompt that the cache had."""
        return int(self.made.cached_pages) * PAGE + int(self.made.cached_tokens)


def read_result(running: Running, result: dict[str, Any], vocabulary: int) -> list[JobEvent]:
    """Return what a result says of its job. `vocabulary` is how many logits are of tokens."""
    if result["stage"] == "prefill":
        return [Prefilled(result["curr_progress"], result["max_progress"])]
    if result["stage"] != "streaming":
        return []
    parts = [result, *([result["held"]] if "held" in result else [])]
    tokens = [token for part in parts for token in _row(part.get("token_ids"))]
    ended = bool(result["eos"])
    stopped = ended and result["eos_reason"] == "stop_token"
    said = min(len(tokens) - stopped, running.job.max_tokens - running.told)
    events: list[JobEvent] = []
    if not running.started:
        running.started = True
        events.append(Started(running.cached))
    if said > 0:
        logprobs = _logprobs(running.job, tokens, parts, vocabulary)
        events.append(Generated(tuple(tokens[:said]), logprobs[:said]))
        running.told += said
    if ended:
        reason = EndReason.STOP_TOKEN if stopped else EndReason.MAX_TOKENS
        events.append(Ended(reason, running.told + stopped))
    return events


def as_api_error(failure: Exception) -> ApiError:
    """Return why one job failed, as its client is told."""
    if isinstance(failure, ApiError):
        return failure
    log.error("job.failed", exc_info=failure)
    return InternalError("the engine failed inside an answer; its log says why")


def _logprobs(
    job: Job, tokens: Sequence[int], parts: Sequence[dict[str, Any]], vocabulary: int
) -> tuple[TokenLogprob, ...]:
    """Return each token's log probability: of all tokens, before any was cut off."""
    if job.top_logprobs is None or not tokens:
        return ()
    rows = torch.cat([part["logits"][0] for part in parts if "logits" in part])
    known = rows[:, :vocabulary].float().log_softmax(dim=-1)
    own = known.gather(1, torch.tensor(tokens)[:, None])[:, 0].tolist()
    best = known.topk(min(job.top_logprobs, known.shape[-1]), dim=-1)
    tops = [
        tuple(zip(ids, values, strict=True))
        for ids, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return tuple(TokenLogprob(own[at], tops[at]) for at in range(len(tokens)))


def _row(tokens: torch.Tensor | None) -> list[int]:
    return [] if tokens is None else list(map(int, tokens[0].tolist()))
