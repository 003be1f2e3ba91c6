"""An engine's stream on its way to a client: read along, passed on where it arrives, and timed."""

import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from cortex_core.errors import ApiError, UpstreamUnreachable, failure
from cortex_dialects import CompletionFold, CompletionStream, UsageChunk, says_more
from cortex_neuron.harness import Engine, Rewriter
from cortex_uplink import Answer, UplinkError, whole_frames
from cortex_uplink.client_writer import ClientWriter


@dataclass(slots=True)
class Measured:
    """What one request took: filled in as the answer passes."""

    started: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    ended: float | None = None
    stream: CompletionStream | None = None

    @property
    def first_token_secs(self) -> float | None:
        """Seconds from taking the request to its first token."""
        return None if self.first_token is None else self.first_token - self.started

    @property
    def tokens_per_second(self) -> float | None:
        """Decoded tokens a second, after the first one."""
        usage = self.stream.usage if self.stream else None
        if usage is None or self.first_token is None or self.ended is None or usage.completion <= 1:
            return None
        return (usage.completion - 1) / max(self.ended - self.first_token, 1e-6)


class Passage:
    """A streamed answer and the client that gets it. It is a `ChunkSink`."""

    __slots__ = ("_measured", "_rewriter", "_stream", "_writer")

    def __init__(self, writer: ClientWriter, rewriter: Rewriter | None, measured: Measured) -> None:
        self._writer = writer
        self._rewriter = rewriter
        self._measured = measured
        self._stream = measured.stream = CompletionStream(UsageChunk.ENSURE)

    async def relay(self, answer: Answer) -> None:
        """Pass an answer on, with a usage chunk at its end.

        Raises UplinkError, FrameTooLarge, or UpstreamUnreachable when the end was not a proper one.
        """
        stream = self._stream
        try:
            await answer.relay(self.take, self)
            if self._rewriter is not None:
                self.take(self._rewriter.finish())
        except UplinkError:
            if not stream.done:  # behind the end there was nothing more to lose
                raise
        finally:
            self._measured.ended = time.perf_counter()
        if rest := stream.finish():
            self._writer.write(rest)
        if not stream.complete and stream.failure is None:
            raise UpstreamUnreachable("the engine ended before its answer did")

    def fail(self, error: ApiError) -> None:
        """Tell the client of `error`, unless the engine has told of one."""
        self._writer.write(self._stream.fail(failure(error)))

    def take(self, data: bytes) -> Awaitable[object] | None:
        """Pass on what a piece of the answer becomes."""
        stream, measured = self._stream, self._measured
        out = stream.feed(data if self._rewriter is None else self._rewriter.feed(data))
        if stream.first_token_seen and measured.first_token is None:
            measured.first_token = time.perf_counter()
        return self._writer.write(out) if out else None

    @property
    def steady(self) -> bool:
        """Whether chunks may pass as they came."""
        return self._rewriter is None and self._stream.steady

    def take_chunks(self, data: bytes) -> bool:
        """Pass on chunks as they came, if all they say is more tokens."""
        return not says_more(data) and bool(whole_frames(data)) and self._writer.write_chunks(data)


async def fold(
    engine: Engine, answer: Answer, rewriter: Rewriter | None, measured: Measured
) -> dict[str, Any]:
    """Return the whole of a streamed answer.

    Raises UplinkError, FrameTooLarge, or an ApiError when the engine failed on the way.
    """
    whole = CompletionFold()
    stream = measured.stream = whole.stream

    def take(data: bytes) -> None:
        whole.feed(data if rewriter is None else rewriter.feed(data))
        if stream.first_token_seen and measured.first_token is None:
            measured.first_token = time.perf_counter()

    try:
        await answer.relay(take)
        if rewriter is not None:
            whole.feed(rewriter.finish())
    finally:
        measured.ended = time.perf_counter()
    if stream.failure is not None:
        raise engine.refusal(400, {"error": stream.failure})
    if not stream.complete:
        raise UpstreamUnreachable("the engine ended before its answer did")
    return whole.answer()
