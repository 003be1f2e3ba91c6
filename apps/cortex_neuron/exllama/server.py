"""The engine's side of the HTTP that a node speaks to it, over a Unix socket of their own.

A request is read and tokenised in a thread, refused before it costs anything, and answered as a
stream; a whole answer is the fold of that stream. The status waits for the first token, so what
fails until then has a status of its own, and what fails later is an error event.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog
from sanic import HTTPResponse, Request

from cortex_core.errors import ApiError, InternalError, InvalidRequest, envelope
from cortex_dialects import DONE_FRAME, CompletionFold, Front, frame_of
from cortex_neuron.exllama.answering import Choice, Tally, frames
from cortex_neuron.exllama.engine_thread import EngineThread
from cortex_neuron.exllama.reading import Reader
from cortex_uplink.envelopes import answer
from cortex_uplink.lean_app import LeanApp
from cortex_uplink.serving import make_app, read_inference, send_now

log = structlog.get_logger()

#: No step takes so long: reading the longest chunk of a prompt takes seconds.
HANG_SECS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineApi:
    """The routes of one engine."""

    engine: EngineThread
    reader: Reader

    def app(self, *, request_max_mb: int) -> LeanApp:
        """Return the server."""
        app = make_app("engine", request_max_mb=request_max_mb)
        app.add_route(self.chat, "/v1/chat/completions", methods=["POST"], name="chat")
        app.add_route(self.complete, "/v1/completions", methods=["POST"], name="completions")
        app.add_route(self.embed, "/v1/embeddings", methods=["POST"])
        app.add_route(self.tokenize, "/tokenize", methods=["POST"])
        app.add_route(self.health, "/health")
        return app

    async def chat(self, request: Request) -> None:
        """`POST /v1/chat/completions`."""
        head = _head("chatcmpl", "chat.completion.chunk")
        await self._serve(request, head, self.reader.chat)

    async def complete(self, request: Request) -> None:
        """`POST /v1/completions`."""
        await self._serve(request, _head("cmpl", "text_completion"), self.reader.texts)

    async def embed(self, _: Request) -> HTTPResponse:
        """`POST /v1/embeddings`: no."""
        raise InvalidRequest(
            "this engine generates text and makes no embeddings; "
            'load an embedding model with another harness, with capabilities = ["embedding"]',
            code="wrong_modality",
        )

    async def tokenize(self, request: Request) -> HTTPResponse:
        """`POST /tokenize`: how many tokens a prompt has."""
        front = read_inference(request)
        count = await asyncio.to_thread(self.reader.count, front.body)
        return answer({"model": front.model, "count": count})

    async def health(self, _: Request) -> HTTPResponse:
        """`GET /health`: what it is working on; 503 when nothing comes of it any more."""
        engine = self.engine
        well = not engine.fault.is_set() and engine.silent_secs < HANG_SECS
        return answer(
            {
                "status": "ok" if well else "failed",
                "silent_secs": round(engine.silent_secs, 3),
                "free_pages": engine.free_pages,
                "jobs": [
                    {
                        "prompt_tokens": job.prompt,
                        "prefilled_tokens": job.prefilled,
                        "generated_tokens": job.generated,
                    }
                    for job in tuple(engine.jobs.values())
                ],
            },
            200 if well else 503,
        )

    async def _serve(
        self,
        request: Request,
        head: dict[str, Any],
        read: Callable[[dict[str, Any], dict[str, Any]], list[Choice]],
    ) -> None:
        front = read_inference(request)
        head["model"] = front.model
        choices = await asyncio.to_thread(read, front.body, head)
        self.engine.check_room(len(choices))
        async with aclosing(self._frames(choices, head, front)) as told:
            if front.stream:
                await _stream(request, told)
                return
            fold = CompletionFold()
            async for frame in told:
                fold.feed(frame)
        await send_now(request, answer(fold.answer()))

    async def _frames(
        self, choices: list[Choice], head: dict[str, Any], front: Front
    ) -> AsyncGenerator[bytes, None]:
        tally = Tally.of(choices)
        async with aclosing(frames(self.engine, choices, tally)) as told:
            async for frame in told:
                yield frame
        if front.wants_usage or not front.stream:
            yield frame_of({**head, "choices": [], "usage": tally.usage().as_json()})
        yield DONE_FRAME


async def _stream(request: Request, told: AsyncGenerator[bytes, None]) -> None:
    first = await anext(told)
    response = await request.respond(
        content_type="text/event-stream; charset=utf-8", headers={"cache-control": "no-cache"}
    )
    await response.send(first)
    try:
        async for frame in told:
            await response.send(frame)
    except ApiError as error:
        await response.send(frame_of(envelope(error)))
    except Exception:  # too late for a status: the stream says so itself
        log.exception("answer.failed")
        await response.send(frame_of(envelope(InternalError("the engine failed; see its log"))))
    await response.eof()


def _head(prefix: str, kind: str) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": "",
    }
