"""Every route of the gateway, in one table."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field
from sanic import HTTPResponse, Request, Sanic

from cortex_core import __version__
from cortex_core.errors import InvalidRequest, ModelNotFound, refused_body
from cortex_core.wire import ModelId
from cortex_dialects import (
    BadBody,
    Envelope,
    Exchange,
    Translated,
    envelope_of,
    read_messages,
    read_passed,
    read_responses,
)
from cortex_dialects.messages import page
from cortex_gateway import listing, picture
from cortex_gateway.counting import TokenCounter
from cortex_gateway.fleet_events import FleetEvents
from cortex_gateway.guarding import grant_of
from cortex_gateway.inference import Inference, read_exchange, ticket
from cortex_gateway.metrics import CONTENT_TYPE
from cortex_gateway.operating import Operator
from cortex_gateway.steering import Steering
from cortex_uplink.envelopes import Named, answer
from cortex_uplink.lean_app import LeanApp
from cortex_uplink.serving import read_body


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
    counter: TokenCounter
    operator: Operator
    events: FleetEvents
    steering: Steering

    def add_to(self, app: LeanApp) -> None:
        """Add the API to `app`."""
        handle = self.inference.handle
        app.add_direct_route(partial(handle, read=_passed), "/v1/chat/completions", "chat")
        app.add_direct_route(partial(handle, read=_passed), "/v1/completions", "completions")
        app.add_direct_route(
            partial(handle, read=_passed, streams=False), "/v1/embeddings", "embeddings"
        )
        app.add_direct_route(partial(handle, read=_messages), "/v1/messages", "messages")
        app.add_route(self.count_message, "/v1/messages/count_tokens", methods=["POST"])
        app.add_direct_route(partial(handle, read=_responses), "/v1/responses", "responses")
        app.add_route(self.count_response, "/v1/responses/input_tokens", methods=["POST"])
        app.add_route(self.models, "/v1/models")
        app.add_route(self.model, "/v1/models/<model_id:path>")
        app.add_route(self.health, "/health")
        app.add_route(self.ready, "/ready")
        app.add_route(self.version, "/version")
        app.add_route(self.whole_fleet, "/fleet")
        app.add_route(self.fleet_events, "/fleet/events")
        self.steering.add_to(app)
        app.add_route(self.explain, "/fleet/explain")
        app.add_route(self.load, "/fleet/models/load", methods=["POST"])
        app.add_route(self.unload, "/fleet/models/unload", methods=["POST"])

    def add_metrics_to(self, app: Sanic[Any, Any]) -> None:
        """Add the Prometheus exposition to the app of the metrics port."""
        app.add_route(self.metrics, "/metrics")

    async def count_message(self, request: Request) -> HTTPResponse:
        """`POST /v1/messages/count_tokens`."""
        return await self._counted(request, _messages, {})

    async def count_response(self, request: Request) -> HTTPResponse:
        """`POST /v1/responses/input_tokens`."""
        return await self._counted(request, _responses, {"object": "response.input_tokens"})

    async def _counted(
        self, request: Request, read: Callable[[Named], Translated], head: dict[str, str]
    ) -> HTTPResponse:
        exchange = read_exchange(request, read)
        self._may_count(request, exchange)
        counted = await self.counter.count(exchange.chat, exchange.front.model)
        response = answer({**head, "input_tokens": counted.tokens})
        response.headers["x-cortex-token-count"] = "exact" if counted.exact else "estimate"
        return response

    def _may_count(self, request: Request, exchange: Translated) -> None:
        """Let a count pass that is not beyond its key; it is a request like any other."""
        door, grant = self.inference.door, grant_of(request)
        if door is not None and grant is not None:
            name = exchange.front.model
            door.require_model(grant, name, self.inference.fleet.view().resolve(name))
            door.leave(door.enter(grant, 0), None, None)

    async def models(self, request: Request) -> HTTPResponse:
        """`GET /v1/models`, in pages and in Anthropic's shape for Anthropic's clients."""
        rows = listing.entries(self.inference.fleet)
        if (grant := grant_of(request)) is not None:
            rows = [row for row in rows if grant.covers(row["id"], row.get("alias_of", row["id"]))]
        if not _for_anthropic(request):
            return answer({"object": "list", "data": rows})
        asked = {name: request.args.get(name) for name in ("limit", "after_id", "before_id")}
        try:
            return answer(page(listing.for_anthropic(rows), **asked))
        except BadBody as error:
            raise refused_body(error) from error

    async def model(self, request: Request, model_id: str) -> HTTPResponse:
        """`GET /v1/models/{id}`; ids may hold slashes."""
        name = unquote(model_id)
        entry = listing.named(self.inference.fleet, name)
        grant = grant_of(request)
        hidden = grant is not None and not grant.covers(name, (entry or {}).get("alias_of", name))
        if entry is None or hidden:
            raise ModelNotFound(f"the model {name!r} is not in the catalogue", param="model")
        if _for_anthropic(request):
            return answer(listing.for_anthropic([entry])[0].as_json())
        return answer(entry)

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


def _passed(request: Named) -> Exchange:
    """Read a request that a node gets as it came."""
    return read_passed(request.body, request.path.rstrip("/"))


def _messages(request: Named) -> Translated:
    return read_messages(request.body, ticket(request))


def _responses(request: Named) -> Translated:
    return read_responses(request.body, ticket(request))


def _for_anthropic(request: Request) -> bool:
    return envelope_of(request.path, request.headers) is Envelope.ANTHROPIC
