"""One request as it came and its answer as it went, kept for whoever looks for a fault.

Nothing is kept until an operator asks for it, and then of one request: the first that is like it
was described, bounded, in memory, with every key and cookie taken out.
"""

import re
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cortex_gateway.accounting import Outcome
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.client_writer import ClientWriter

#: Of a request's body, and as much of its answer.
MOST_BYTES: Final = 256 * 1024
_REMOVED: Final = "[removed]"
_SECRET_HEADER: Final = re.compile(r"auth|key|cookie|token|secret|password", re.IGNORECASE)
_SECRET_FIELD: Final = re.compile(
    r'("(?:[\w-]*api[_-]?key|authorization|(?:access|auth|bearer)[_-]?token|password'
    r'|[\w-]*secret)"\s*:\s*)"(?:[^"\\]|\\.)*"',
    re.IGNORECASE,
)
#: Shorter values are words of every day.
_LEAST_SECRET: Final = 6


class Recording:
    """One request, and what has gone out to its client so far."""

    def __init__(self, request: ClientRequest, outcome: Outcome) -> None:
        self._asked = (request.name, request.method, request.path)
        self._headers = dict(request.headers)
        self._body = request.body[:MOST_BYTES]
        self._sent = len(request.body)
        self.outcome = outcome
        self._answer = bytearray()
        self._answered = 0

    def add(self, data: bytes) -> None:
        """Take in bytes of the answer."""
        self._answered += len(data)
        if (room := MOST_BYTES - len(self._answer)) > 0:
            self._answer += data[:room]

    def picture(self) -> dict[str, Any]:
        """Return it all, without what is secret."""
        name, method, path = self._asked
        secrets = _secrets_of(self._headers)
        body = _SECRET_FIELD.sub(rf'\1"{_REMOVED}"', _text(self._body))
        return {
            "id": name,
            "method": method,
            "path": path,
            "headers": {
                one: _REMOVED if _SECRET_HEADER.search(one) else _without(value, secrets)
                for one, value in self._headers.items()
            },
            "body": _without(body, secrets),
            "body_bytes": self._sent,
            "answer": _without(_text(bytes(self._answer)), secrets),
            "answer_bytes": self._answered,
            "complete": max(self._answered, self._sent) <= MOST_BYTES,
        }


class RecordingWriter(ClientWriter):
    """A writer that keeps what it writes."""

    __slots__ = ("_recording",)

    def __init__(self, request: ClientRequest, recording: Recording) -> None:
        super().__init__(request)
        self._recording = recording

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Write all of an answer."""
        self._recording.add(body)
        super().whole(status, headers, body)

    def write(self, data: bytes) -> Awaitable[object] | None:
        """Write some of a stream."""
        self._recording.add(data)
        return super().write(data)

    def write_chunks(self, data: bytes) -> bool:
        """Have the bytes written piece by piece, as the text that they are."""
        del data
        return False


def writer_for(request: ClientRequest, outcome: Outcome) -> ClientWriter:
    """Return what the answer is written with."""
    recording = outcome.recording
    return ClientWriter(request) if recording is None else RecordingWriter(request, recording)


@dataclass(slots=True)
class Captures:
    """The one capture there may be."""

    model: str | None = None
    principal: str | None = None
    #: Until when a request is looked for; a reading of `time.monotonic`.
    until: float | None = None
    _kept: Recording | None = field(default=None)

    def arm(self, model: str | None, principal: str | None, within_secs: float) -> None:
        """Capture the next request that is for this model and by this principal."""
        self.model, self.principal = model, principal
        self.until = time.monotonic() + within_secs
        self._kept = None

    def forget(self) -> None:
        """Capture nothing, and keep nothing."""
        self.until = self._kept = None

    def look(self, request: ClientRequest, outcome: Outcome) -> Recording | None:
        """Return a recording of the request if it is the one. Only while `until` is set."""
        if self.until is None or time.monotonic() > self.until:
            self.until = None
            return None
        if self.model not in (None, outcome.asked_for):
            return None
        if self.principal not in (None, outcome.principal):
            return None
        self.until = None
        self._kept = Recording(request, outcome)
        return self._kept

    def picture(self) -> dict[str, Any]:
        """Return `GET /fleet/capture`."""
        if self._kept is not None:
            ended = self._kept.outcome.ended is not None
            return {"state": "done" if ended else "recording", **self._kept.picture()}
        left = 0.0 if self.until is None else self.until - time.monotonic()
        if left > 0:
            return {"state": "armed", "within_secs": round(left, 1)}
        return {"state": "none"}


def _secrets_of(headers: Mapping[str, str]) -> list[str]:
    """Return what a client authenticates itself with, wherever it may say it again."""
    told = [value for name, value in headers.items() if _SECRET_HEADER.search(name)]
    parts = {part for value in told for part in re.split(r"[\s;=,]+", value)}
    return sorted((one for one in parts if len(one) >= _LEAST_SECRET), key=len, reverse=True)


def _without(text: str, secrets: list[str]) -> str:
    for one in secrets:
        text = text.replace(one, _REMOVED)
    return text


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
