"""From a request that holds a seat to the engine's answer: streamed through, or folded.

The engine is always asked for a stream. An unstreamed answer is the fold of it: only a streamed
request is cancelled by the engine the moment its connection closes, and both paths carry the same
things.
"""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from orjson import JSONDecodeError, dumps, loads

from cortex_core.errors import (
    ApiError,
    UpstreamTimeout,
    UpstreamUnreachable,
    envelope,
)
from cortex_dialects import (
    CompletionFold,
    CompletionStream,
    UsageChunk,
    frame_of,
)
from cortex_neuron.harness import Conversation, Engine
from cortex_uplink import Answer, FirstByteTimeout, IdleTimeout, Uplink, UplinkError

log = structlog.get_logger()

MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024


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


@asynccontextmanager
async def asked(
    uplink: Uplink, engine: Engine, path: str, conversation: Conversation
) -> AsyncIterator[AsyncIterator[bytes]]:
    """Ask the engine and give its stream once it begins. Raises an ApiError when it refuses.

    The stream is asked to close with a usage chunk.
    """
    *attempts, last = conversation.bodies
    for body in (*attempts, last):
        async with uplink.open(
            f"{engine.url}{path}", body=_streaming_body(body), headers=_headers(engine)
        ) as answer:
            if answer.status == 200:  # noqa: PLR2004
                yield conversation.read(answer.chunks())
                return
            error = await refused(engine, answer)
        if body is last or error.code != "template_render_failed":
            raise error


def _streaming_body(body: Mapping[str, Any]) -> bytes:
    more = {"stream": True, "stream_options": {"include_usage": True}, "keep_alive": None}
    return dumps({**body, **more})


def _headers(engine: Engine) -> dict[str, str]:
    return {"content-type": "application/json", **engine.headers}


async def relay(chunks: AsyncIterator[bytes], measured: Measured) -> AsyncIterator[bytes]:
    """Yield the engine's stream, ending in a usage chunk; a broken one ends in an error event."""
    stream = measured.stream = CompletionStream(UsageChunk.ENSURE)
    try:
        async for chunk in chunks:
            out = stream.feed(chunk)
            if measured.first_token is None and stream.first_token_seen:
                measured.first_token = time.perf_counter()
            if out:
                yield out
    except UplinkError as error:
        log.warning("engine.lost", error=str(error))
        yield frame_of(envelope(as_api_error(error)))
        return
    finally:
        measured.ended = time.perf_counter()
    if rest := stream.finish():
        yield rest
    if not stream.complete and stream.failure is None:
        log.warning("engine.truncated")
        yield frame_of(envelope(UpstreamUnreachable("the engine ended before its answer did")))


async def fold(engine: Engine, chunks: AsyncIterator[bytes], measured: Measured) -> dict[str, Any]:
    """Return the whole answer. Raises an ApiError when the engine failed on the way."""
    whole = CompletionFold()
    measured.stream = whole.stream
    try:
        async for chunk in chunks:
            whole.feed(chunk)
            if measured.first_token is None and whole.stream.first_token_seen:
                measured.first_token = time.perf_counter()
    except UplinkError as error:
        log.warning("engine.lost", error=str(error))
        raise as_api_error(error) from error
    finally:
        measured.ended = time.perf_counter()
    if whole.stream.failure is not None:
        raise engine.refusal(400, {"error": whole.stream.failure})
    if not whole.stream.complete:
        raise UpstreamUnreachable("the engine ended before its answer did")
    return whole.answer()


async def refused(engine: Engine, answer: Answer) -> ApiError:
    """Return the engine's refusal as one of our errors."""
    try:
        raw = await answer.read(MAX_ERROR_BYTES)
        body = loads(raw)
    except (UplinkError, JSONDecodeError):
        body = None
    return engine.refusal(answer.status, body)


def as_api_error(error: UplinkError) -> ApiError:
    """Return a lost or silent engine as the answer a client gets."""
    match error:
        case FirstByteTimeout() | IdleTimeout():
            return UpstreamTimeout("the engine fell silent")
        case _:
            return UpstreamUnreachable("the engine was lost; it is being restarted")


async def whole_answer(uplink: Uplink, engine: Engine, path: str, body: bytes) -> tuple[int, bytes]:
    """Return status and body of a request that engines do not stream, such as embeddings."""
    url, headers = f"{engine.url}{path}", _headers(engine)
    try:
        async with uplink.open(url, body=body, headers=headers) as answer:
            if answer.status != 200:  # noqa: PLR2004
                raise await refused(engine, answer)
            return answer.status, await answer.read(MAX_ANSWER_BYTES)
    except UplinkError as error:
        log.warning("engine.lost", error=str(error))
        raise as_api_error(error) from error
