"""Every route of the node. Control routes read what is in memory and answer at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from sanic import HTTPResponse, Request

from cortex_core import __version__
from cortex_core.errors import InvalidRequest, ModelNotFound
from cortex_core.wire import Discovery, Health, LoadRequest, ModelInfo, UnloadRequest
from cortex_neuron.inference import Inference
from cortex_neuron.journal import Journal
from cortex_neuron.metrics import CONTENT_TYPE, Metrics
from cortex_neuron.registry import Registry
from cortex_neuron.token_counts import TokenCounts
from cortex_neuron.workshop import NodeWorkshop
from cortex_uplink.envelopes import answer
from cortex_uplink.lean_app import LeanApp
from cortex_uplink.serving import read_body, read_inference

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
    metrics: Metrics
    inference: Inference

    def add_to(self, app: LeanApp) -> None:
        """Add the routes to `app`."""
        app.add_route(self.get_discovery, "/discovery")
        app.add_route(self.get_health, "/health")
        app.add_route(self.get_models, "/models")
        app.add_route(self.follow_events, "/events")
        app.add_route(self.load, "/models/load", methods=["POST"])
        app.add_route(self.unload, "/models/unload", methods=["POST"])
        app.add_route(self.endpoint, "/models/<model:path>/endpoint")
        app.add_route(self.capabilities, "/models/<model:path>/capabilities")
        app.add_direct_route(self.inference.generate, "/v1/chat/completions", "chat")
        app.add_direct_route(self.inference.generate, "/v1/completions", "completions")
        app.add_direct_route(self.inference.embed, "/v1/embeddings", "embed")
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


def _text_field(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidRequest(f"{name!r} must be a string", param=name)
    return value
