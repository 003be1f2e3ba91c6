"""One node's stream on its way to one client: read along, translated, and timed as it passes."""

import time
from collections.abc import Awaitable
from dataclasses import dataclass

from cortex_dialects import AnswerStream
from cortex_gateway.accounting import Outcome
from cortex_gateway.responding import EventResponse
from cortex_uplink import Answer, UplinkError

_OF_THE_REQUEST = frozenset({"invalid_request_error", "rate_limit_error"})


@dataclass(frozen=True, slots=True)
class Passage:
    """The stream, the client, and what is to be remembered of both."""

    stream: AnswerStream
    events: EventResponse
    outcome: Outcome

    async def take(self, answer: Answer) -> bool | None:
        """Pass an answer on. Return whether the replica failed, None when nobody can tell."""
        self.outcome.status = 200
        try:
            await answer.relay(self._pass_on)
        except UplinkError:
            if not self.stream.done:  # behind the end there was nothing more to lose
                raise
        return None if self._is_refused else not self.stream.complete

    def _pass_on(self, chunk: bytes) -> Awaitable[object] | None:
        out = self.stream.feed(chunk)
        self.outcome.last_chunk = time.perf_counter()
        if self.outcome.first_token is None and self.stream.first_token_seen:
            self.outcome.first_token = self.outcome.last_chunk
        if not out:
            return None
        self.events.write(out)
        return self.events.enough()

    @property
    def _is_refused(self) -> bool:
        """The stream ended in an error event about the request, not about the replica."""
        failure = self.stream.failure
        return failure is not None and failure.get("type") in _OF_THE_REQUEST
