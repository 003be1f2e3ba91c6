"""What a client got, in few words: the vocabulary of expectations and of the table."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from orjson import JSONDecodeError, loads

from cortex_dialects.failure import Failure, anthropic_type
from tests.chaos.wire import Ended, Heard


class Kind(Enum):
    """How a request ended, as its client sees it."""

    SERVED = "served"
    REFUSED = "refused"
    EVENT = "event"
    SILENT = "silent"
    CLOSED = "closed"
    HUNG = "hung"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended. `code` is OpenAI's code, or Anthropic's type on its routes."""

    kind: Kind
    status: int = 200
    code: str = ""
    retry: bool = False

    def __str__(self) -> str:
        match self.kind:
            case Kind.SERVED:
                return "the answer"
            case Kind.REFUSED:
                return f"{self.status} `{self.code}`" + (", Retry-After" if self.retry else "")
            case Kind.EVENT:
                return f"error event `{self.code}`"
            case Kind.SILENT:
                return "an end without a word"
            case Kind.CLOSED:
                return "closed"
            case Kind.HUNG:
                return "nothing: it hung"

    def for_anthropic(self) -> "Outcome":
        """Return the same end as Anthropic's clients are told of it."""
        if self.kind not in {Kind.REFUSED, Kind.EVENT}:
            return self
        failure = Failure(status=self.status, type="api_error", message="")
        return Outcome(
            kind=self.kind,
            status=self.status if self.kind is Kind.REFUSED else 200,
            code=anthropic_type(failure),
            retry=self.retry,
        )

    def for_openai(self) -> "Outcome":
        """Return the end as OpenAI's clients see it: an event hides its status."""
        return self if self.kind is not Kind.EVENT else event(self.code)


SERVED = Outcome(kind=Kind.SERVED)
CLOSED = Outcome(kind=Kind.CLOSED, status=0)


def refused(status: int, code: str) -> Outcome:
    """A clean status with an envelope; only what may pass says when to try again."""
    return Outcome(kind=Kind.REFUSED, status=status, code=code, retry=status == 503)


def event(code: str, status: int = 200) -> Outcome:
    """A stream that ended in an error event; `status` is what it would have been unopened."""
    return Outcome(kind=Kind.EVENT, status=status, code=code)


def outcome_of(heard: Heard) -> Outcome:
    """Return what an answer of an inference route amounts to."""
    if heard.ended is Ended.TIMEOUT:
        return Outcome(kind=Kind.HUNG, status=heard.status)
    if heard.status == 0:
        return CLOSED
    if heard.status != 200:
        error = _error(heard.body)
        retry = "retry-after" in heard.headers
        return Outcome(kind=Kind.REFUSED, status=heard.status, code=error, retry=retry)
    if heard.headers.get("content-type", "").startswith("text/event-stream"):
        return _of_stream(heard)
    whole = heard.ended is Ended.WHOLE and b"Hello" in heard.body and _is_object(heard.body)
    return SERVED if whole else Outcome(kind=Kind.SILENT)


def _of_stream(heard: Heard) -> Outcome:
    payloads = [
        line.removeprefix(b"data: ")
        for line in heard.body.splitlines()
        if line.startswith(b"data: ")
    ]
    errors = [one for one in payloads if b'"error"' in one[:40] or b'"type":"error"' in one]
    if errors:
        last = errors[-1] == payloads[-1] and heard.ended is Ended.WHOLE
        return event(_error(errors[-1])) if last else Outcome(kind=Kind.SILENT)
    ended = payloads and (payloads[-1] == b"[DONE]" or b'"message_stop"' in payloads[-1])
    ended = ended and b"Hel" in heard.body and b"lo" in heard.body
    return SERVED if ended and heard.ended is Ended.WHOLE else Outcome(kind=Kind.SILENT)


def _error(raw: bytes) -> str:
    try:
        error: Any = loads(raw)["error"]
    except (JSONDecodeError, KeyError, TypeError):
        return "no envelope"
    return str(error.get("code") or error.get("type"))


def _is_object(raw: bytes) -> bool:
    try:
        return isinstance(loads(raw), dict)
    except JSONDecodeError:
        return False
