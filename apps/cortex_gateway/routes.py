"""Every route of the gateway, in one table."""

from typing import Any, TypeVar

from orjson import JSONDecodeError, loads
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sanic import HTTPResponse, Request, Sanic

from cortex_core import __version__
from cortex_core.errors import InvalidRequest, ModelNotFound
from cortex_core.wire import ModelId
from cortex_gateway import listing, picture
from cortex_gateway.fleet_events import FleetEvents
from cortex_gateway.inference import Inference
from cortex_gateway.metrics import CONTENT_TYPE
from cortex_gateway.operating import Operator
from cortex_uplink.serving import answer


_Order = TypeVar("_Order", bound=BaseModel)


class LoadOrder(BaseModel):
    """`POST /fleet/models/load`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelId
    node: str | None = None


class UnloadOrder(LoadOrder):
    """`POST /fleet/models/unload`."""

    drain_secs: float = Field(default=30.0, ge=0, le=3600)


def add_routes(
    app: Sanic[Any, Any], inference: Inference, operator: Operator, events: FleetEvents
) -> None:
    """Add the API to `app`."""
    fleet = inference.fleet

    async def infer(request: Request) -> HTTPResponse | None:
        return await inference.handle(request)

    async def embed(request: Request) -> HTTPResponse | None:
        return await inference.handle(request, streams=False)

    async def models(_: Request) -> HTTPResponse:
        return answer({"object": "list", "data": listing.entries(fleet)})

    async def model(_: Request, model_id: str) -> HTTPResponse:
        for entry in listing.entries(fleet):
            if entry["id"] == model_id:
                return answer(entry)
        raise ModelNotFound(f"the model {model_id!r} is not in the catalogue", param="model")

    async def health(_: Request) -> HTTPResponse:
        return answer(picture.health(fleet))

    async def ready(_: Request) -> HTTPResponse:
        state = picture.health(fleet)
        if inference.gate.draining or not state["nodes"]["healthy"]:
            return answer({"ready": False, **state}, 503)
        return answer({"ready": True, **state})

    async def version(_: Request) -> HTTPResponse:
        return answer({"name": "cortex", "version": __version__})

    async def whole_fleet(_: Request) -> HTTPResponse:
        return answer(
            picture.fleet_picture(
                fleet,
                in_flight=inference.gate.in_flight,
                waiting=inference.dispatcher.waiting,
            )
        )

    async def fleet_events(request: Request) -> None:
        response = await request.respond(
            content_type="text/event-stream; charset=utf-8", headers={"cache-control": "no-cache"}
        )
        async for frame in events.follow(request.headers.get("last-event-id")):
            await response.send(frame)

    async def load(request: Request) -> HTTPResponse:
        order = _body(request, LoadOrder)
        status, body = await operator.load(order.model, order.node)
        return answer(body, status)

    async def unload(request: Request) -> HTTPResponse:
        order = _body(request, UnloadOrder)
        return answer(await operator.unload(order.model, order.node, order.drain_secs))

    for path in ("/v1/chat/completions", "/v1/completions"):
        app.add_route(infer, path, methods=["POST"], name=f"infer{path.replace('/', '_')}")
    app.add_route(embed, "/v1/embeddings", methods=["POST"])
    app.add_route(models, "/v1/models")
    app.add_route(model, "/v1/models/<model_id:path>", unquote=True)
    app.add_route(health, "/health")
    app.add_route(ready, "/ready")
    app.add_route(version, "/version")
    app.add_route(whole_fleet, "/fleet")
    app.add_route(fleet_events, "/fleet/events")
    app.add_route(load, "/fleet/models/load", methods=["POST"])
    app.add_route(unload, "/fleet/models/unload", methods=["POST"])


def add_metrics_route(app: Sanic[Any, Any], inference: Inference) -> None:
    """Add the Prometheus exposition to the app of the metrics port."""

    async def metrics(_: Request) -> HTTPResponse:
        return HTTPResponse(inference.metrics.exposition(), content_type=CONTENT_TYPE)

    app.add_route(metrics, "/metrics")


def _body(request: Request, model: type[_Order]) -> _Order:
    """Return the body of a control request as `model`. Raises InvalidRequest."""
    try:
        value = loads(request.body)
    except JSONDecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}", code="malformed_json") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise InvalidRequest(f"{param or 'body'}: {first['msg']}", param=param) from None
