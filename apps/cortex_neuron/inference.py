"""One inference request, from whether it may come in to the last byte of its answer."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import structlog
from orjson import dumps

from cortex_core.errors import ApiError, InternalError, ShuttingDown, UpstreamUnreachable
from cortex_core.principals import told_principal
from cortex_dialects import FrameTooLarge, Front
from cortex_neuron.harness import Engine, Rewriter
from cortex_neuron.metrics import Metrics
from cortex_neuron.passing import Measured, Passage, fold
from cortex_neuron.proxying import as_api_error, asked, whole_answer
from cortex_neuron.registry import Registry
from cortex_neuron.resident import Resident
from cortex_uplink import Answer, Uplink, UplinkError
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.client_writer import ClientWriter
from cortex_uplink.envelopes import name_headers
from cortex_uplink.serving import Gate, read_inference

log = structlog.get_logger()

_JSON = {"content-type": "application/json"}
_EVENTS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """Everything the inference routes work with."""

    registry: Registry
    uplink: Uplink
    metrics: Metrics
    gate: Gate

    async def generate(self, request: ClientRequest) -> None:
        """`POST /v1/chat/completions` and `/v1/completions`."""
        front = read_inference(request)
        resident, engine = self.registry.serving(front.model)
        async with self.gate.admit(), _seat(request, resident, engine, front.body):
            resident, engine = self._begin(front, resident)
            measured = Measured()
            conversation = engine.conversation(front.body)
            path = request.path.rstrip("/")
            try:
                async with asked(self.uplink, engine, path, conversation) as answer:
                    rewriter = conversation.rewriter()
                    if front.stream:
                        await self._stream(request, front.model, answer, rewriter, measured)
                    else:
                        body = await fold(engine, answer, rewriter, measured)
                        await _send(request, dumps(body), _first_token_told(measured))
            except (UplinkError, FrameTooLarge) as error:
                raise _told(error, request, front.model) from error
            finally:
                self._used(resident, measured)

    async def embed(self, request: ClientRequest) -> None:
        """`POST /v1/embeddings`."""
        front = read_inference(request)
        resident, engine = self.registry.serving(front.model)
        async with self.gate.admit(), _seat(request, resident, engine, front.body):
            resident, engine = self._begin(front, resident)
            path = request.path.rstrip("/")
            try:
                body = await whole_answer(self.uplink, engine, path, request.body)
            except UplinkError as error:
                raise _told(error, request, front.model) from error
            finally:
                self._used(resident, None)
            await _send(request, body, {})

    def _begin(self, front: Front, resident: Resident) -> tuple[Resident, Engine]:
        """Return what serves the request now that it has a seat: it may have waited long."""
        resident, engine = self.registry.serving(front.model)
        if front.keep_alive_secs is not None:
            resident.keep_alive_secs = front.keep_alive_secs
        return resident, engine

    async def _stream(
        self,
        request: ClientRequest,
        model: str,
        answer: Answer,
        rewriter: Rewriter | None,
        measured: Measured,
    ) -> None:
        """Pass a stream on. Whatever goes wrong from here on is an event of the stream."""
        writer = ClientWriter(request)
        writer.open({**_EVENTS, **name_headers(request)})
        passage = Passage(writer, rewriter, measured)
        try:
            await passage.relay(answer)
        except asyncio.CancelledError:
            if not self.gate.cut:
                raise
            passage.fail(ShuttingDown("shutting down; ask again shortly"))
        except Exception as error:  # noqa: BLE001  # an open stream must still end in an error event
            passage.fail(_told(error, request, model))
        writer.end()
        if (taking := writer.enough()) is not None:
            await taking

    def _used(self, resident: Resident, measured: Measured | None) -> None:
        resident.last_used = time.time()
        self.metrics.requests.labels(resident.id).inc()
        if measured is None:
            return
        if (decode := measured.tokens_per_second) is not None:
            resident.tok_s_decode = _average(resident.tok_s_decode, decode)
        usage = measured.stream.usage if measured.stream else None
        if usage is not None:
            self.metrics.prompt_tokens.labels(resident.id).inc(usage.prompt)
            self.metrics.completion_tokens.labels(resident.id).inc(usage.completion)
            if measured.first_token_secs:
                # What the engine still knew it did not read again.
                rate = (usage.prompt - (usage.cached or 0)) / measured.first_token_secs
                resident.tok_s_prefill = _average(resident.tok_s_prefill, rate)


def _seat(
    request: ClientRequest, resident: Resident, engine: Engine, body: Mapping[str, Any]
) -> AbstractAsyncContextManager[None]:
    """Return a seat for a request. Raises RequestTooLarge when there can never be one."""
    pages = 0 if engine.cache is None else engine.cache.pages_for(body)
    principal = told_principal(request.headers, request.connection.address)
    return resident.admission.seat(principal, pages)


def _first_token_told(measured: Measured) -> dict[str, str]:
    first = measured.first_token_secs
    return {} if first is None else {"x-neuron-ttft-ms": f"{first * 1000:.3f}"}


async def _send(request: ClientRequest, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a whole answer, and wait until its client has most of it: so long a drain waits too."""
    writer = ClientWriter(request)
    writer.whole(200, {**_JSON, **name_headers(request), **headers}, body)
    if (taking := writer.enough()) is not None:
        await taking


def _told(error: Exception, request: ClientRequest, model: str) -> ApiError:
    """Return what a client is told of what befell its answer, having told the operator."""
    where = {"request_id": request.name, "model": model}
    match error:
        case UplinkError() | FrameTooLarge():
            log.warning("engine.lost", **where, error=str(error))
            return as_api_error(error)
        case UpstreamUnreachable():
            log.warning("engine.truncated", **where)
            return error
        case _:
            log.error("request.crashed", **where, exc_info=error)
            return InternalError("something went wrong here; the operator's log has the details")


def _average(before: float | None, value: float) -> float:
    """Return an exponential mean that forgets most of what is ten requests old."""
    return round(value if before is None else before + 0.3 * (value - before), 2)
