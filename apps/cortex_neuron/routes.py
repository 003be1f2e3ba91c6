"""Every route of the node. Control routes read what is in memory and answer at once."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import structlog
from sanic import HTTPResponse, Request, Sanic

from cortex_core import __version__
from cortex_core.errors import InvalidRequest, ModelNotFound
from cortex_core.principals import told_principal
from cortex_core.wire import Discovery, Health, LoadRequest, ModelInfo, UnloadRequest
from cortex_neuron import proxying
from cortex_neuron.harness import Engine
from cortex_neuron.journal import Journal
from cortex_neuron.metrics import CONTENT_TYPE, Metrics
from cortex_neuron.registry import Registry
from cortex_neuron.resident import Resident
from cortex_neuron.token_counts import TokenCounts
from cortex_neuron.workshop import NodeWorkshop
from cortex_uplink import Uplink, UplinkError
from cortex_uplink.envelopes import answer, request_id
from cortex_uplink.serving import Gate, read_body, read_inference, send_now

log = structlog.get_logger()

KEEP_ALIVE_SECS = 1.0
_WHERE = frozenset({"source", "quant"})


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeApi:
    """Everything the routes work with."""

    discovery: Discovery
    health: Callable[[], Health]
    rows: Callable[[], list[ModelInfo]]
    registry: Registry
    workshop: NodeWorkshop
    token_counts: TokenCounts
    journal: Journal
    uplink: Uplink
    metrics: Metrics
    gate: Gate

    def add_to(self, app: Sanic[Any, Any]) -> None:
        """Add the routes to `app`."""
        app.add_route(self.get_discovery, "/discovery")
        app.add_route(self.get_health, "/health")
        app.add_route(self.get_models, "/models")
        app.add_route(self.follow_events, "/events")
        app.add_route(self.load, "/models/load", methods=["POST"])
        app.add_route(self.unload, "/models/unload", methods=["POST"])
        app.add_route(self.endpoint, "/models/<model:path>/endpoint")
        app.add_route(self.capabilities, "/models/<model:path>/capabilities")
        app.add_route(self.infer, "/v1/chat/completions", methods=["POST"], name="chat")
        app.add_route(self.infer, "/v1/completions", methods=["POST"], name="completions")
        app.add_route(self.embed, "/v1/embeddings", methods=["POST"])
        app.add_route(self.tokenize, "/tokenize", methods=["POST"])
        app.add_route(self.version, "/version")
        app.add_route(self.exposition, "/metrics")

    async def get_discovery(self, _: Request) -> HTTPResponse:
        """`GET /discovery`."""
        return answer(self.discovery.model_dump(mode="json"))

    async def get_health(self, _: Request) -> HTTPResponse:
        """`GET /health`."""
        return answer(self.health().model_dump(mode="json", exclude_none=True))

    async def get_models(self, _: Request) -> HTTPResponse:
        """`GET /models`: a bare array."""
        return answer([row.model_dump(mode="json", exclude_none=True) for row in self.rows()])

    async def follow_events(self, request: Request) -> None:
        """`GET /events`."""
        response = await request.respond(
            content_type="text/event-stream; charset=utf-8", headers={"cache-control": "no-cache"}
        )
        last = request.headers.get("last-event-id")
        async for frame in self.journal.follow(last, KEEP_ALIVE_SECS):
            await response.send(frame)

    async def load(self, request: Request) -> HTTPResponse:
        """`POST /models/load`."""
        order = read_body(request, LoadRequest)
        result = await self.registry.load(order, request.ip)
        status = 200 if result.status == "loaded" else 202
        return answer(result.model_dump(mode="json", exclude_none=True), status)

    async def unload(self, request: Request) -> HTTPResponse:
        """`POST /models/unload`."""
        order = read_body(request, UnloadRequest)
        await self.registry.unload(order.model_id, order.drain_secs)
        return answer({"status": "unloaded"})

    async def endpoint(self, request: Request, model: str) -> HTTPResponse:
        """`GET /models/{id}/endpoint`: this node's own address, as the caller reached it."""
        self.registry.serving(unquote(model))
        return answer({"url": f"{request.scheme}://{request.host}"})

    async def capabilities(self, _: Request, model: str) -> HTTPResponse:
        """`GET /models/{id}/capabilities`, from what is on this node, without loading anything."""
        name = unquote(model)
        known = next((row for row in self.rows() if row.id == name), None)
        if known is None or not known.capabilities:
            raise ModelNotFound(f"nothing on this node tells what {name!r} can do", param="model")
        return answer({"capabilities": list(known.capabilities)})

    async def version(self, _: Request) -> HTTPResponse:
        """`GET /version`."""
        return answer({"name": "neuron", "version": __version__, "boot_id": self.discovery.boot_id})

    async def exposition(self, _: Request) -> HTTPResponse:
        """`GET /metrics`."""
        return HTTPResponse(
            self.metrics.exposition(self.rows(), self.health()), content_type=CONTENT_TYPE
        )

    async def tokenize(self, request: Request) -> HTTPResponse:
        """`POST /tokenize`: how many tokens a request's prompt has, by the model's own files."""
        front = read_inference(request)
        source, quant = (_text_field(front.body, name) for name in ("source", "quant"))
        path = await self.workshop.find(front.model, source, quant)
        if path is None:
            raise ModelNotFound(f"the files of {front.model!r} are not on this node", param="model")
        prompt = {key: value for key, value in front.body.items() if key not in _WHERE}
        count = await self.token_counts.count(path, front.model, prompt)
        return answer({"model": front.model, "count": count})

    async def infer(self, request: Request) -> None:
        """`POST /v1/chat/completions` and `/v1/completions`."""
        front = read_inference(request)
        resident, engine = self.registry.serving(front.model)
        async with self.gate.admit(), _seat(request, resident, engine, front.body):
            resident, engine = self.registry.serving(front.model)
            if front.keep_alive_secs is not None:
                resident.keep_alive_secs = front.keep_alive_secs
            measured = proxying.Measured()
            try:
                async with proxying.asked(
                    self.uplink, engine, request.path, engine.conversation(front.body)
                ) as chunks:
                    if not front.stream:
                        body = await proxying.fold(engine, chunks, measured)
                        await send_now(request, _whole(body, measured))
                        return
                    response = await request.respond(
                        content_type="text/event-stream; charset=utf-8",
                        headers={"cache-control": "no-cache"},
                    )
                    async for chunk in proxying.relay(chunks, measured):
                        await response.send(chunk)
                    await response.eof()
            except UplinkError as error:
                log.warning(
                    "engine.unreachable",
                    request_id=request_id(request),
                    model=front.model,
                    error=str(error),
                )
                raise proxying.as_api_error(error) from error
            finally:
                self._used(resident, measured)

    async def embed(self, request: Request) -> None:
        """`POST /v1/embeddings`."""
        front = read_inference(request)
        resident, engine = self.registry.serving(front.model)
        async with self.gate.admit(), _seat(request, resident, engine, front.body):
            resident, engine = self.registry.serving(front.model)
            if front.keep_alive_secs is not None:
                resident.keep_alive_secs = front.keep_alive_secs
            try:
                status, raw = await proxying.whole_answer(
                    self.uplink, engine, request.path, request.body
                )
            finally:
                self._used(resident, None)
            response = HTTPResponse(raw, status=status, content_type="application/json")
            await send_now(request, response)

    def _used(self, resident: Resident, measured: proxying.Measured | None) -> None:
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
    request: Request, resident: Resident, engine: Engine, body: Mapping[str, Any]
) -> AbstractAsyncContextManager[None]:
    """Return a seat for a request. Raises RequestTooLarge when there can never be one."""
    pages = 0 if engine.cache is None else engine.cache.pages_for(body)
    return resident.admission.seat(told_principal(request.headers, request.ip), pages)


def _text_field(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{name!r} must be a string", param=name)
    return value


def _whole(body: dict[str, Any], measured: proxying.Measured) -> HTTPResponse:
    response = answer(body)
    if measured.first_token_secs is not None:
        response.headers["x-neuron-ttft-ms"] = f"{measured.first_token_secs * 1000:.3f}"
    return response


def _average(before: float | None, value: float) -> float:
    """Return an exponential mean that forgets most of what is ten requests old."""
    return round(value if before is None else before + 0.3 * (value - before), 2)
