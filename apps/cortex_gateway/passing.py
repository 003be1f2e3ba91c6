"""One node's stream on its way to one client: read along, translated, and timed as it passes."""

import time
from collections.abc import Awaitable

from cortex_dialects import AnswerStream, CompletionStream, says_more
from cortex_gateway.accounting import Outcome
from cortex_gateway.responding import EventResponse
from cortex_uplink import Answer, UplinkError, whole_frames

_OF_THE_REQUEST = frozenset({"invalid_request_error", "rate_limit_error"})


class Passage:
    """The stream, the client, and what is to be remembered of both. It is a `ChunkSink`."""

    __slots__ = ("_events", "_outcome", "_passed", "_stream", "_writer")

    def __init__(self, stream: AnswerStream, events: EventResponse, outcome: Outcome) -> None:
        self._stream = stream
        self._events = events
        self._outcome = outcome
        self._writer = events.writer
        #: Where the client gets the bytes that the node sends.
        self._passed = stream if isinstance(stream, CompletionStream) else None

    async def relay(self, answer: Answer) -> bool | None:
        """Pass an answer on. Return whether the replica failed, None when nobody can tell."""
        self._outcome.status = 200
        try:
            await answer.relay(self.take, self)
        except UplinkError:
            if not self._stream.done:  # behind the end there was nothing more to lose
                raise
        finally:
            self._outcome.last_chunk = time.perf_counter()
        return None if self._is_refused else not self._stream.complete

    def take(self, body: bytes) -> Awaitable[object] | None:
        """Pass on what a piece of the answer becomes."""
        stream = self._stream
        out = stream.feed(body)
        outcome = self._outcome
        if outcome.first_token is not None:
            outcome.pieces += body.count(b"\n\n")
        elif stream.first_token_seen:
            outcome.first_token = time.perf_counter()
            outcome.pieces = 1
        return self._events.write(out) if out else None

    @property
    def steady(self) -> bool:
        """Whether chunks may pass as they came."""
        return self._passed is not None and self._passed.steady

    def take_chunks(self, data: bytes) -> bool:
        """Pass on chunks as they came, if all they say is more tokens."""
        if says_more(data):
            return False
        frames = whole_frames(data)
        if not frames or not self._writer.write_chunks(data):
            return False
        self._outcome.pieces += frames
        return True

    @property
    def _is_refused(self) -> bool:
        """The stream ended in an error event about the request, not about the replica."""
        failure = self._stream.failure
        return failure is not None and failure.get("type") in _OF_THE_REQUEST
