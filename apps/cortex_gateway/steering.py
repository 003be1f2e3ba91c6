"""The routes by which an operator sees what requests do, and steers them."""

import asyncio
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from orjson import loads
from pydantic import BaseModel, ConfigDict, Field
from sanic import HTTPResponse, Request

from cortex_core.errors import InvalidRequest
from cortex_core.wire import ModelId
from cortex_gateway.capturing import Captures
from cortex_gateway.in_flight import InFlight
from cortex_gateway.tallies import Tallies
from cortex_uplink.envelopes import answer
from cortex_uplink.event_memory import EventMemory
from cortex_uplink.lean_app import LeanApp
from cortex_uplink.serving import read_body

#: Whoever follows the log is answered at least this often.
MOST_WAIT_SECS = 30.0
#: Events are looked for this often, so that writing one costs nothing more.
LOOK_SECS = 0.1


class CaptureOrder(BaseModel):
    """`POST /fleet/capture`: what the request to capture is like; None: any."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelId | None = None
    principal: str | None = None
    within_secs: float = Field(default=600.0, gt=0, le=86400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steering:
    """Everything these routes work with."""

    in_flight: InFlight
    tallies: Tallies
    captures: Captures
    memory: EventMemory

    def add_to(self, app: LeanApp) -> None:
        """Add the routes to `app`."""
        app.add_route(self.requests, "/fleet/requests")
        app.add_route(self.cancel, "/fleet/requests/<request_id:str>", methods=["DELETE"])
        app.add_route(self.logs, "/fleet/logs")
        app.add_route(self.capture, "/fleet/capture")
        app.add_route(self.arm, "/fleet/capture", methods=["POST"])
        app.add_route(self.forget, "/fleet/capture", methods=["DELETE"])

    async def requests(self, _: Request) -> HTTPResponse:
        """`GET /fleet/requests`: those in flight, the last ones that ended, and all together."""
        return answer({**self.in_flight.picture(), "totals": self.tallies.totals()})

    async def cancel(self, _: Request, request_id: str) -> HTTPResponse:
        """`DELETE /fleet/requests/{id}`."""
        name = unquote(request_id)
        count = self.in_flight.cancel(name)
        return answer({"status": "cancelled", "id": name, "count": count})

    async def logs(self, request: Request) -> HTTPResponse:
        """`GET /fleet/logs`: the last events, of one `request` or `node` if one is named.

        `after`: only those behind this number; `wait_secs`: answered when there is one, at the
        latest then. `missed` events were no longer there.
        """
        after = _number(request, "after", 0)
        wait_secs = min(_number(request, "wait_secs", 0), MOST_WAIT_SECS)
        wanted = {
            key: value
            for key, name in (("request_id", "request"), ("node", "node"))
            if (value := request.args.get(name)) is not None
        }
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_secs
        memory = self.memory
        # A number of an earlier life of ours: all of this one is new.
        seen = int(after) if after <= memory.last else 0
        missed = max(0, memory.first - seen - 1) if seen else 0
        while True:
            lines, seen = list(memory.after(seen)), memory.last
            events = [event for line in lines if (event := _wanted(line, wanted)) is not None]
            if events or loop.time() >= until:
                return answer({"events": events, "next": seen, "missed": missed})
            await asyncio.sleep(LOOK_SECS)

    async def capture(self, _: Request) -> HTTPResponse:
        """`GET /fleet/capture`: what was captured, if anything."""
        return answer(self.captures.picture())

    async def arm(self, request: Request) -> HTTPResponse:
        """`POST /fleet/capture`: capture the next request that is like this."""
        order = read_body(request, CaptureOrder)
        self.captures.arm(order.model, order.principal, order.within_secs)
        return answer(self.captures.picture())

    async def forget(self, _: Request) -> HTTPResponse:
        """`DELETE /fleet/capture`."""
        self.captures.forget()
        return answer(self.captures.picture())


def _wanted(line: str, wanted: dict[str, str]) -> dict[str, Any] | None:
    """Return the event of a line if it says all of this."""
    event: dict[str, Any] = loads(line)
    return event if all(event.get(key) == value for key, value in wanted.items()) else None


def _number(request: Request, name: str, default: float) -> float:
    text = request.args.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15:  # noqa: PLR2004  # nor is NaN
        raise InvalidRequest(f"{name} must be a number that is not negative", param=name)
    return value
