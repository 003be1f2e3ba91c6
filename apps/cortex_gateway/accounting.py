"""What became of one request: one line in the log, one set of observations, whatever happened."""

import time
from typing import TYPE_CHECKING, Any

import structlog

from cortex_core.errors import ApiError, InternalError
from cortex_dialects import AnswerStream, Usage
from cortex_gateway.door import Visit
from cortex_gateway.metrics import Metrics
from cortex_gateway.node_answers import NodeRefused
from cortex_gateway.tallies import UNKNOWN, Tally
from cortex_uplink.logs import log_often

if TYPE_CHECKING:
    from cortex_gateway.capturing import Recording

log = structlog.get_logger()


class Outcome:
    """One request, filled in on its way. Times are readings of `time.perf_counter`."""

    # Defaults of the class: most requests set few of them.
    asked_for = ""
    model: str | None = None
    node: str | None = None
    decision: str | None = None
    stream = False
    status = 0
    code: str | None = None
    attempts = 0
    sent: float | None = None
    waits_since: float | None = None
    waited_secs = 0.0
    first_token: float | None = None
    last_chunk: float | None = None
    ended: float | None = None
    #: Pieces of the answer since its first token; about a token each.
    pieces = 0
    usage: Usage | None = None
    finish_reason: str | None = None
    client_gone = False
    cancelled = False
    #: While there are keys: whose it is, and what it holds of the key's limits.
    key: str | None = None
    visit: Visit | None = None
    #: Where the node was asked; what went wrong, for the operator only.
    url: str | None = None
    why: dict[str, Any] | None = None
    crash: Exception | None = None
    recording: "Recording | None" = None

    def __init__(self, *, request_id: str, route: str, principal: str, dialect: str) -> None:
        self.request_id = request_id
        self.route = route
        self.principal = principal
        self.dialect = dialect
        self.started = time.perf_counter()

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

    @property
    def came(self) -> int | None:
        """About how many tokens came of the answer; None when none was begun."""
        begun = self.pieces or (self.client_gone and self.sent is not None)
        return self.pieces if begun else None

    @property
    def phase(self) -> str:
        """`waiting` for a model, `reading` the prompt, or `answering`."""
        if self.sent is None or self.waits_since is not None:
            return "waiting"
        return "reading" if self.first_token is None else "answering"

    def headers(self) -> dict[str, str]:
        """Return what an answer says of its key's limits and of its way, so far as it is known."""
        left = {} if self.visit is None else self.visit.headers
        if self.node is None or self.decision is None:
            return dict(left)
        told = {**left, "x-cortex-node": self.node, "x-cortex-decision": self.decision}
        if (overhead := self.overhead_secs) is not None:
            told["x-cortex-overhead-ms"] = f"{overhead * 1000:.2f}"
        return told

    def failed(self, error: ApiError) -> None:
        """Remember the error that the client was told, and what was behind it."""
        self.status, self.code = error.status, error.code
        self.why = {**(self.why or {}), **reasons(error)}

    def read(self, stream: AnswerStream) -> None:
        """Take over what a stream said at its end."""
        self.usage = stream.usage or self.usage
        self.finish_reason = stream.finish_reason or self.finish_reason


def reasons(error: BaseException) -> dict[str, Any]:
    """Return what an operator should know of a failure: its words, and those of its causes."""
    told: dict[str, Any] = {"error": str(error)}
    behind: list[str] = []
    here: BaseException | None = error
    while here is not None:
        if isinstance(here, NodeRefused):
            told |= here.fields
        elif here is not error:
            behind.append(f"{type(here).__name__}: {here}")
        here = here.__cause__
    if behind:
        told["cause"] = " <- ".join(behind)
    return told


def account(outcome: Outcome, metrics: Metrics, *, in_catalogue: bool) -> None:
    """Write the request's line and count it. A model that is not ours never becomes a label."""
    outcome.ended = time.perf_counter()
    duration = outcome.ended - outcome.started
    model = outcome.model if in_catalogue else None
    _count(outcome, metrics.tallies.of(model or UNKNOWN, outcome.node or UNKNOWN), duration)
    fields = _told(outcome, duration)
    if outcome.code is None:
        log_often("request.done", fields)
        return
    fields |= outcome.why or {}
    if outcome.url is not None:
        fields["url"] = outcome.url
    if outcome.client_gone:
        log_often("request.done", fields)
        return
    if outcome.code == InternalError.default_code:
        log.error("request.failed", **fields, exc_info=outcome.crash)
    else:
        log.warning("request.failed", **fields)
    outcome.crash = None


def _count(outcome: Outcome, tally: Tally, duration: float) -> None:
    tally.requests += 1
    tally.duration.add(duration)
    if (code := outcome.code) is not None:
        tally.errors[code] = tally.errors.get(code, 0) + 1
    if (first_token := outcome.first_token_secs) is not None:
        tally.first_token.add(first_token)
    if (rate := outcome.tokens_per_second) is not None:
        tally.rate.add(rate)
    if (overhead := outcome.overhead_secs) is not None:
        tally.overhead.add(overhead)
    if (usage := outcome.usage) is not None:
        tally.prompt_tokens += usage.prompt
        tally.completion_tokens += usage.completion
        tally.cached_tokens += usage.cached or 0


def _told(outcome: Outcome, duration: float) -> dict[str, Any]:
    """Return what the line says: what is not known is left out."""
    fields: dict[str, Any] = {
        "request_id": outcome.request_id,
        "route": outcome.route,
        "principal": outcome.principal,
        "dialect": outcome.dialect,
        "stream": outcome.stream,
        "status": outcome.status,
        "attempts": outcome.attempts,
        "duration_ms": round(duration * 1000, 1),
    }
    for name in ("key", "model", "node", "decision", "code", "finish_reason"):
        if (value := getattr(outcome, name)) is not None:
            fields[name] = value
    if (usage := outcome.usage) is not None:
        fields["prompt_tokens"] = usage.prompt
        fields["completion_tokens"] = usage.completion
        if usage.cached is not None:
            fields["cached_tokens"] = usage.cached
    if (first_token := outcome.first_token_secs) is not None:
        fields["ttft_ms"] = round(first_token * 1000, 1)
    if outcome.waited_secs:
        fields["waited_ms"] = round(outcome.waited_secs * 1000, 1)
    if outcome.client_gone:
        fields["client_gone"] = True
    return fields
