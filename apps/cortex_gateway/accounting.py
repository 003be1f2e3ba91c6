"""What became of one request: one line in the log, one set of observations, whatever happened."""

import time
from dataclasses import dataclass, field

import structlog

from cortex_core.errors import ApiError
from cortex_dialects import AnswerStream, Usage
from cortex_gateway.metrics import Metrics

log = structlog.get_logger()

UNKNOWN = "unknown"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One request, filled in on its way. Times are readings of `time.perf_counter`."""

    request_id: str
    route: str
    principal: str
    dialect: str = "openai"
    started: float = field(default_factory=time.perf_counter)
    model: str | None = None
    node: str | None = None
    decision: str | None = None
    stream: bool = False
    status: int = 0
    code: str | None = None
    attempts: int = 0
    sent: float | None = None
    waited_secs: float = 0.0
    first_token: float | None = None
    last_chunk: float | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    client_gone: bool = False

    @property
    def first_token_secs(self) -> float | None:
        """Seconds to the first token; None when none came."""
        return None if self.first_token is None else self.first_token - self.started

    @property
    def overhead_secs(self) -> float | None:
        """Seconds of our own before the node was asked; waiting for a model is not ours."""
        return None if self.sent is None else max(0.0, self.sent - self.started - self.waited_secs)

    @property
    def tokens_per_second(self) -> float | None:
        """Decoded tokens a second after the first; None when too few came to tell."""
        if self.usage is None or self.first_token is None or self.last_chunk is None:
            return None
        span = self.last_chunk - self.first_token
        return (
            (self.usage.completion - 1) / span if self.usage.completion > 1 and span > 0 else None
        )

    def failed(self, error: ApiError) -> None:
        """Remember the error that the client was told."""
        self.status, self.code = error.status, error.code

    def read(self, stream: AnswerStream) -> None:
        """Take over what a stream said at its end."""
        self.usage = stream.usage or self.usage
        self.finish_reason = stream.finish_reason or self.finish_reason


def account(outcome: Outcome, metrics: Metrics, *, in_catalogue: bool) -> None:
    """Write the request's line and count it. A model that is not ours never becomes a label."""
    duration = time.perf_counter() - outcome.started
    where = ((outcome.model if in_catalogue else None) or UNKNOWN, outcome.node or UNKNOWN)
    series = metrics.of(*where)
    series.requests.inc()
    series.duration.observe(duration)
    if outcome.code is not None:
        metrics.errors.labels(*where, outcome.code).inc()
    if (first_token := outcome.first_token_secs) is not None:
        series.first_token.observe(first_token)
    if (rate := outcome.tokens_per_second) is not None:
        series.rate.observe(rate)
    if (overhead := outcome.overhead_secs) is not None:
        series.overhead.observe(overhead)
    usage = outcome.usage
    if usage is not None:
        series.prompt_tokens.inc(usage.prompt)
        series.completion_tokens.inc(usage.completion)
        if usage.cached:
            series.cached_tokens.inc(usage.cached)
    fields = {
        "request_id": outcome.request_id,
        "route": outcome.route,
        "principal": outcome.principal,
        "dialect": outcome.dialect,
        "model": outcome.model,
        "node": outcome.node,
        "decision": outcome.decision,
        "stream": outcome.stream,
        "status": outcome.status,
        "code": outcome.code,
        "attempts": outcome.attempts,
        "prompt_tokens": usage.prompt if usage else None,
        "completion_tokens": usage.completion if usage else None,
        "cached_tokens": usage.cached if usage else None,
        "ttft_ms": _ms(outcome.first_token_secs),
        "waited_ms": _ms(outcome.waited_secs or None),
        "duration_ms": _ms(duration),
        "finish_reason": outcome.finish_reason,
        "client_gone": outcome.client_gone or None,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    if outcome.code is None or outcome.client_gone:
        log.info("request.done", **known)
    else:
        log.warning("request.failed", **known)


def _ms(secs: float | None) -> float | None:
    return None if secs is None else round(secs * 1000, 1)
