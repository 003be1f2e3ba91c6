"""From a request that holds a seat to the engine's answer: streamed through, or folded.

The engine is always asked for a stream. An unstreamed answer is the fold of it: only a streamed
request is cancelled by the engine the moment its connection closes, and both paths carry the same
things.
"""

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from orjson import JSONDecodeError, loads

from cortex_core.errors import (
    ApiError,
    InvalidRequest,
    ModelNotFound,
    UpstreamMalformed,
    UpstreamTimeout,
    UpstreamUnreachable,
    envelope,
)
from cortex_dialects import (
    CompletionFold,
    CompletionStream,
    Front,
    UsageChunk,
    frame_of,
    with_fields,
)
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


def streaming_body(front: Front) -> bytes:
    """Return the body that asks the engine for a stream with a closing usage chunk."""
    return with_fields(front, stream=True, stream_options={"include_usage": True}, keep_alive=None)


async def relay(answer: Answer, measured: Measured) -> AsyncIterator[bytes]:
    """Yield the engine's stream, ending in a usage chunk; a broken one ends in an error event."""
    stream = measured.stream = CompletionStream(UsageChunk.ENSURE)
    try:
        async for chunk in answer.chunks():
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


async def fold(answer: Answer, measured: Measured) -> dict[str, Any]:
    """Return the whole answer. Raises an ApiError when the engine failed on the way."""
    whole = CompletionFold()
    measured.stream = whole.stream
    try:
        async for chunk in answer.chunks():
            whole.feed(chunk)
            if measured.first_token is None and whole.stream.first_token_seen:
                measured.first_token = time.perf_counter()
    except UplinkError as error:
        log.warning("engine.lost", error=str(error))
        raise as_api_error(error) from error
    finally:
        measured.ended = time.perf_counter()
    if whole.stream.failure is not None:
        raise from_engine(400, {"error": whole.stream.failure})
    if not whole.stream.complete:
        raise UpstreamUnreachable("the engine ended before its answer did")
    return whole.answer()


async def refused(answer: Answer) -> ApiError:
    """Return the engine's refusal as one of our errors."""
    try:
        raw = await answer.read(MAX_ERROR_BYTES)
        body = loads(raw)
    except (UplinkError, JSONDecodeError):
        body = None
    return from_engine(answer.status, body)


def from_engine(status: int, body: Any) -> ApiError:
    """Return the error that an engine's status and body stand for.

    A refusal of the request is the client's to read; what failed inside the engine is not.
    """
    error = body.get("error") if isinstance(body, Mapping) else None
    detail = error if isinstance(error, Mapping) else {}
    message = str(detail.get("message") or "the engine refused the request")
    if detail.get("type") == "exceed_context_size_error":
        limit, prompt = detail.get("n_ctx"), detail.get("n_prompt_tokens")
        return InvalidRequest(
            f"This model's maximum context length is {limit} tokens; the prompt has {prompt}.",
            code="context_length_exceeded",
            extra={"max": limit, "prompt_len": prompt},
        )
    if status == 404:  # noqa: PLR2004
        return ModelNotFound(message, code="unsupported_route")
    if status == 501:  # noqa: PLR2004
        return InvalidRequest(
            "this model is loaded to generate text, not for embeddings; list it (once more) with "
            'capabilities = ["embedding"]',
            code="wrong_modality",
        )
    if 400 <= status < 500:  # noqa: PLR2004
        return InvalidRequest(message)
    log.error("engine.failed", status=status, detail=message[:500])
    return UpstreamMalformed("the engine failed on this request")


def as_api_error(error: UplinkError) -> ApiError:
    """Return a lost or silent engine as the answer a client gets."""
    match error:
        case FirstByteTimeout() | IdleTimeout():
            return UpstreamTimeout("the engine fell silent")
        case _:
            return UpstreamUnreachable("the engine was lost; it is being restarted")


async def whole_answer(
    uplink: Uplink, url: str, *, body: bytes, headers: Mapping[str, str]
) -> tuple[int, bytes]:
    """Return status and body of a request that engines do not stream, such as embeddings."""
    try:
        async with uplink.open(url, body=body, headers=headers) as answer:
            if answer.status != 200:  # noqa: PLR2004
                raise await refused(answer)
            return answer.status, await answer.read(MAX_ANSWER_BYTES)
    except UplinkError as error:
        log.warning("engine.lost", error=str(error))
        raise as_api_error(error) from error
