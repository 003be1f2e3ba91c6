"""From a request that holds a seat to the engine's answer, or to why there is none.

The engine is always asked for a stream. An unstreamed answer is the fold of it: only a streamed
request is cancelled by the engine the moment its connection closes, and both paths carry the same
things.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from orjson import JSONDecodeError, dumps, loads

from cortex_core.errors import (
    ApiError,
    UpstreamMalformed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from cortex_dialects import FrameTooLarge
from cortex_neuron.harness import Conversation, Engine
from cortex_uplink import Answer, FirstByteTimeout, IdleTimeout, Uplink, UplinkError

MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024


@asynccontextmanager
async def asked(
    uplink: Uplink, engine: Engine, path: str, conversation: Conversation
) -> AsyncIterator[Answer]:
    """Ask the engine and give its stream once it begins. Raises an ApiError when it refuses.

    The stream is asked to close with a usage chunk.
    """
    *attempts, last = conversation.bodies
    for body in (*attempts, last):
        async with uplink.open(
            f"{engine.url}{path}", body=_streaming_body(body), headers=_headers(engine)
        ) as answer:
            if answer.status == 200:  # noqa: PLR2004
                yield answer
                return
            error = await refused(engine, answer)
        if body is last or error.code != "template_render_failed":
            raise error


def _streaming_body(body: Mapping[str, Any]) -> bytes:
    more = {"stream": True, "stream_options": {"include_usage": True}, "keep_alive": None}
    return dumps({**body, **more})


def _headers(engine: Engine) -> dict[str, str]:
    return {"content-type": "application/json", **engine.headers}


async def refused(engine: Engine, answer: Answer) -> ApiError:
    """Return the engine's refusal as one of our errors."""
    try:
        raw = await answer.read(MAX_ERROR_BYTES)
        body = loads(raw)
    except (UplinkError, JSONDecodeError):
        body = None
    return engine.refusal(answer.status, body)


def as_api_error(error: UplinkError | FrameTooLarge) -> ApiError:
    """Return an engine that is lost, silent or beyond measure as the answer a client gets."""
    match error:
        case FirstByteTimeout() | IdleTimeout():
            return UpstreamTimeout("the engine fell silent")
        case FrameTooLarge():
            return UpstreamMalformed("the engine sent an event beyond all measure")
        case _:
            return UpstreamUnreachable("the engine was lost; it is being restarted")


async def whole_answer(uplink: Uplink, engine: Engine, path: str, body: bytes) -> bytes:
    """Return the answer to a request that engines do not stream, such as embeddings.

    Raises UplinkError, or an ApiError when the engine refuses.
    """
    async with uplink.open(f"{engine.url}{path}", body=body, headers=_headers(engine)) as answer:
        if answer.status != 200:  # noqa: PLR2004
            raise await refused(engine, answer)
        return await answer.read(MAX_ANSWER_BYTES)
