"""Every route of the gateway, in one table."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field
from sanic import HTTPResponse, Request, Sanic

from cortex_core import __version__
from cortex_core.errors import InvalidRequest, ModelNotFound
from cortex_core.wire import ModelId
from cortex_gateway import listing, picture
from cortex_gateway.fleet_events import FleetEvents
from cortex_gateway.inference import Inference
from cortex_gateway.metrics import CONTENT_TYPE
from cortex_gateway.operating import Operator
from cortex_uplink.serving import answer, read_body


class LoadOrder(BaseModel):
    """`POST /fleet/models/load`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelId
    node: str | None = None


class UnloadOrder(LoadOrder):
    """`POST /fleet/models/unload`."""

    drain_secs: float = Field(default=30.0, ge=0, le=3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayApi:
    """Everything the routes work with."""

    inference: Inference
    operator: Operator
    events: FleetEvents

    def add_to(self, app: Sanic[Any, Any]) -> None:
        """Add the API to `app`."""
        app.add_route(self.infer, "/v1/chat/completions", methods=["POST"], name="chat")
        app.add_route(self.infer, "/v1/completions", methods=["POST"], name="completions")
        app.add_route(self.embed, "/v1/embeddings", methods=["POST"])
        app.add_route(self.models, "/v1/models")
        app.add_route(self.model, "/v1/models/<model_id:path>")
        app.add_route(self.health, "/health")
        app.add_route(self.ready, "/ready")
        app.add_route(self.version, "/version")
        app.add_route(self.whole_fleet, "/fleet")
        app.add_route(self.fleet_events, "/fleet/events")
        app.add_route(self.explain, "/fleet/explain")
        app.add_route(self.load, "/fleet/models/load", methods=["POST"])
        app.add_route(self.unload, "/fleet/models/unload", methods=["POST"])

    def add_metrics_to(self, app: Sanic[Any, Any]) -> None:
        """Add the Prometheus exposition to the app of the metrics port."""
        app.add_route(self.metrics, "/metrics")

    async def infer(self, request: Request) -> HTTPResponse | None:
        """`POST /v1/chat/completions` and `/v1/completions`."""
        return await self.inference.handle(request)

    async def embed(self, request: Request) -> HTTPResponse | None:
        """`POST /v1/embeddings`."""
        return await self.inference.handle(request, streams=False)

    async def models(self, _: Request) -> HTTPResponse:
        """`GET /v1/models`."""
        return answer({"object": "list", "data": listing.entries(self.inference.fleet)})

    async def model(self, _: Request, model_id: str) -> HTTPResponse:
        """`GET /v1/models/{id}`; ids may hold slashes."""
        name = unquote(model_id)
        for entry in listing.entries(self.inference.fleet):
            if entry["id"] == name:
                return answer(entry)
        raise ModelNotFound(f"the model {name!r} is not in the catalogue", param="model")

    async def health(self, _: Request) -> HTTPResponse:
        """`GET /health`: 200 as long as we live; `status` says how the fleet is."""
        return answer(picture.health(self.inference.fleet))

    async def ready(self, _: Request) -> HTTPResponse:
        """`GET /ready`: 503 while no node is there, or while we drain."""
        state = picture.health(self.inference.fleet)
        if self.inference.gate.draining or not state["nodes"]["healthy"]:
            response = answer({"ready": False, **state}, 503)
            response.headers["retry-after"] = "1"
            return response
        return answer({"ready": True, **state})

    async def version(self, _: Request) -> HTTPResponse:
        """`GET /version`."""
        return answer({"name": "cortex", "version": __version__})

    async def whole_fleet(self, _: Request) -> HTTPResponse:
        """`GET /fleet`."""
        return answer(
            picture.fleet_picture(
                self.inference.fleet,
                in_flight=self.inference.gate.in_flight,
                waiting=self.inference.dispatcher.waiting,
            )
        )

    async def fleet_events(self, request: Request) -> None:
        """`GET /fleet/events`."""
        response = await request.respond(
            content_type="text/event-stream; charset=utf-8", headers={"cache-control": "no-cache"}
        )
        async for frame in self.events.follow(request.headers.get("last-event-id")):
            await response.send(frame)

    async def explain(self, request: Request) -> HTTPResponse:
        """`GET /fleet/explain?model=…`: what would be done with a request, and why."""
        model = request.args.get("model")
        if not model:
            raise InvalidRequest("name the model: /fleet/explain?model=…", param="model")
        return answer(self.operator.explain(model, request.args.get("node")))

    async def load(self, request: Request) -> HTTPResponse:
        """`POST /fleet/models/load`."""
        order = read_body(request, LoadOrder)
        status, body = await self.operator.load(order.model, order.node)
        return answer(body, status)

    async def unload(self, request: Request) -> HTTPResponse:
        """`POST /fleet/models/unload`."""
        order = read_body(request, UnloadOrder)
        return answer(await self.operator.unload(order.model, order.node, order.drain_secs))

    async def metrics(self, _: Request) -> HTTPResponse:
        """`GET /metrics` on the metrics port."""
        return HTTPResponse(self.inference.metrics.exposition(), content_type=CONTENT_TYPE)
