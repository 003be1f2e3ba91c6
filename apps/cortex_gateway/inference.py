"""One inference request, from its first byte to the last one answered.

A request that is already in the node's dialect is forwarded as it came, any other is translated
on its way there and back. Before the first byte a failed replica is replaced by another; after it,
never.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeAlias, TypeVar

import structlog
from orjson import JSONDecodeError, loads
from sanic import HTTPResponse

from cortex_core.access import Grant
from cortex_core.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    RequestCancelled,
    ShuttingDown,
    UpstreamMalformed,
    UpstreamUnreachable,
    refused_body,
)
from cortex_core.principals import principal_of
from cortex_core.settings import CortexSettings
from cortex_dialects import AnswerStream, BadBody, Exchange, FrameTooLarge, Ticket, Usage
from cortex_gateway.accounting import Outcome, account, reasons
from cortex_gateway.capturing import Captures, writer_for
from cortex_gateway.dispatch import Dispatcher
from cortex_gateway.door import Door
from cortex_gateway.failing import (
    lost_node,
    malformed,
    tell_client,
    tell_replaced,
    transient,
    unreachable,
)
from cortex_gateway.fleet import Fleet
from cortex_gateway.in_flight import InFlight
from cortex_gateway.metrics import Metrics
from cortex_gateway.node_answers import (
    MAX_ERROR_BYTES,
    NodeRefused,
    node_refusal,
)
from cortex_gateway.passing import Passage
from cortex_gateway.progressing import load_progress
from cortex_gateway.responding import EventResponse
from cortex_router import RouteRequest, Serve, rough_tokens, session_key
from cortex_uplink import (
    Answer,
    ConnectFailed,
    Uplink,
    UplinkError,
)
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.envelopes import Named, name_headers, request_id
from cortex_uplink.serving import Gate

log = structlog.get_logger()

#: Takes a replica's answer; returns whether the replica failed, None when nobody can tell.
Use: TypeAlias = Callable[[Answer], Awaitable[bool | None]]
#: Reads a request into an exchange in one of the dialects. Raises BadBody.
Read: TypeAlias = Callable[[Named], Exchange]
_Read = TypeVar("_Read", bound=Exchange)

#: What the routes of other dialects than the nodes' are called in the log.
_DIALECTS = {"/v1/messages": "anthropic", "/v1/responses": "responses"}
MAX_ATTEMPTS = 3
_BROKEN = frozenset({500, 502, 504})
MAX_ANSWER_BYTES = 256 * 1024 * 1024


@dataclass(slots=True, kw_only=True)
class Inference:
    """Everything the inference routes work with."""

    fleet: Fleet
    dispatcher: Dispatcher
    uplink: Uplink
    metrics: Metrics
    gate: Gate
    in_flight: InFlight
    captures: Captures
    settings: CortexSettings
    #: Only while there are keys.
    door: Door | None = None

    async def handle(
        self, request: ClientRequest, read: Read, *, streams: bool = True
    ) -> HTTPResponse | None:
        """Answer one request. None means that the answer has been sent."""
        door, grant = self.door, request.grant
        outcome = Outcome(
            request_id=request.name,
            route=request.path,
            principal=principal_of(request.headers, request.connection.address)
            if grant is None
            else grant.principal,
            dialect=_DIALECTS.get(request.path.rstrip("/"), "openai"),
        )
        events: EventResponse | None = None
        gate = self.gate
        self.in_flight.enter(outcome)
        try:
            gate.enter()
            try:
                exchange = read_exchange(request, read)
                front = exchange.front
                outcome.asked_for = front.model
                if self.captures.until is not None:
                    outcome.recording = self.captures.look(request, outcome)
                if door is not None and grant is not None:
                    self._let_in(door, grant, request, outcome)
                outcome.stream = front.stream and streams
                if not outcome.stream:
                    await self._whole(request, exchange, outcome)
                    return None
                stream = exchange.stream()
                hold_secs = self.settings.timeouts.hold_headers_secs
                events = EventResponse(request, stream, outcome, hold_secs)
                events.progress = load_progress(self.fleet, request, outcome, stream)
                events.keep_alive()
                try:
                    await self._streamed(request, exchange, outcome, stream, events)
                finally:
                    events.stop()
                return None
            finally:
                gate.leave()
        except ApiError as error:
            return await tell_client(request, error, outcome, events)
        except asyncio.CancelledError:
            if (over := _ended_by_us(outcome, cut=gate.cut)) is not None:
                return await tell_client(request, over, outcome, events)
            outcome.client_gone = True
            outcome.status, outcome.code = 499, "client_gone"
            raise
        except Exception as crash:  # noqa: BLE001  # an open stream must still end in an error event
            ours = InternalError("something went wrong here; the operator's log has the details")
            outcome.crash = crash
            return await tell_client(request, ours, outcome, events)
        finally:
            self.in_flight.leave(outcome)
            if door is not None and outcome.visit is not None:
                door.leave(outcome.visit, outcome.usage, outcome.came)
            self._account(outcome)

    def _account(self, outcome: Outcome) -> None:
        known = outcome.model is not None
        if not known and outcome.asked_for:
            view = self.fleet.view()
            outcome.model = view.resolve(outcome.asked_for)
            known = view.profile(outcome.model) is not None
        account(outcome, self.metrics, in_catalogue=known)

    def _let_in(self, door: Door, grant: Grant, request: ClientRequest, outcome: Outcome) -> None:
        outcome.key = grant.name
        if grant.models is not None:
            model = self.fleet.view().resolve(outcome.asked_for)
            door.require_model(grant, outcome.asked_for, model)
        outcome.visit = door.enter(grant, rough_tokens(len(request.body)))

    async def _streamed(
        self,
        request: ClientRequest,
        exchange: Exchange,
        outcome: Outcome,
        stream: AnswerStream,
        events: EventResponse,
    ) -> None:
        try:
            passage = Passage(stream, events, outcome)
            await self._with_replica(request, exchange, outcome, passage.relay)
        except FrameTooLarge as error:
            raise UpstreamMalformed("the node sent an event beyond all measure") from error
        finally:
            outcome.read(stream)
        if rest := stream.finish():
            events.write(rest)
        if stream.failure is not None:
            outcome.code = str(stream.failure.get("code") or "stream_failed")
            outcome.why = {"error": str(stream.failure.get("message") or "")}
        elif not stream.complete:
            raise UpstreamUnreachable("the node was lost before the answer was complete")
        await events.end()

    async def _whole(self, request: ClientRequest, exchange: Exchange, outcome: Outcome) -> None:
        writer = writer_for(request, outcome)

        async def collect(answer: Answer) -> bool:
            body = await answer.read(MAX_ANSWER_BYTES)
            outcome.last_chunk = time.perf_counter()
            _read_whole(body, answer, outcome)
            told = exchange.whole(body)
            if told is None:
                raise malformed("the node's answer is not a finished completion", body)
            outcome.status = answer.status
            writer.whole(answer.status, _whole_headers(request, outcome), told)
            return False

        await self._with_replica(request, exchange, outcome, collect)
        if (taking := writer.enough()) is not None:
            await taking

    async def _with_replica(
        self, request: ClientRequest, exchange: Exchange, outcome: Outcome, use: Use
    ) -> None:
        """Find a replica and let `use` take its answer; replace replicas that fail before it."""
        avoid: frozenset[str] = frozenset()
        front = exchange.front
        session = session_key(request.headers, front.body)
        tokens = rough_tokens(len(request.body))
        refused: NodeRefused | None = None
        for _ in range(MAX_ATTEMPTS):
            asked = RouteRequest(front.model, avoid, None, session, tokens)
            try:
                serve = self.dispatcher.at_once(asked) or await self._wait(asked, outcome)
            except ApiError as error:
                # Without those that failed nobody may be able to hold it: no reason to say never.
                if refused is not None and avoid:
                    outcome.why = {**(outcome.why or {}), "nobody_else": error.message}
                    raise transient(refused.error) from refused
                raise error from refused
            if refused is not None:
                tell_replaced(refused, outcome)
            outcome.node, outcome.model, outcome.decision = serve.node, serve.model, serve.reason
            outcome.attempts += 1
            try:
                await self._ask(exchange, outcome, serve, use, session=session, tokens=tokens)
            except NodeRefused as error:
                if not error.replaceable:
                    raise error.error from error
                refused = error
                outcome.why = reasons(error)
                if not await self._was_stale(serve, error.error):
                    avoid |= {serve.node}
            else:
                return
        if refused is None:
            raise UpstreamUnreachable("no replica could be reached")
        raise transient(refused.error) from refused

    async def _wait(self, asked: RouteRequest, outcome: Outcome) -> Serve:
        """Wait until a replica can take the request."""
        began = outcome.waits_since = time.perf_counter()
        try:
            return await self.dispatcher.acquire(asked)
        finally:
            outcome.waits_since = None
            outcome.waited_secs += time.perf_counter() - began

    async def _was_stale(self, serve: Serve, error: ApiError) -> bool:
        """Tell whether the node refused because our picture of it is old: then it may be asked.

        It refuses a model that it has just unloaded, or whose engine it is restarting.
        """
        if error.code not in {"model_not_found", "service_unavailable"}:
            self.dispatcher.nudge(serve.node)
            return False
        return not await self.dispatcher.still_claims(serve.node, serve.model)

    async def _ask(
        self,
        exchange: Exchange,
        outcome: Outcome,
        serve: Serve,
        use: Use,
        *,
        session: str | None,
        tokens: int,
    ) -> None:
        name, model = serve.node, serve.model
        node = self.fleet.nodes.get(name)
        if node is None:
            raise unreachable(ConnectFailed("the node has left the configuration"))
        body = exchange.node_body(model)
        request = node.request(self.uplink, exchange.node_path, outcome.principal)
        if outcome.sent is None:
            outcome.sent = time.perf_counter()
        began = False
        failed: bool | None = None
        self.fleet.sent(name, model, session=session, tokens=tokens)
        try:
            async with self.uplink.ask(
                request, body=body, header=("x-request-id", outcome.request_id)
            ) as answer:
                if answer.status != HTTPStatus.OK:
                    raw = await answer.read(MAX_ERROR_BYTES)
                    # What a client did wrong, and having no seat, say nothing of the replica.
                    failed = True if answer.status in _BROKEN else None
                    raise node_refusal(answer.status, answer.headers, raw)
                began = True
                failed = await use(answer)
        except (NodeRefused, FrameTooLarge):
            failed = failed or began or None
            raise
        except UplinkError as lost:
            failed = True
            raise lost_node(lost, began=began) from lost
        finally:
            if failed is not False:
                outcome.url = f"{node.entry.endpoint}{exchange.node_path}"
            self.fleet.ended(name, model, failed=failed)


def _whole_headers(request: ClientRequest, outcome: Outcome) -> dict[str, str]:
    return {"content-type": "application/json", **name_headers(request), **outcome.headers()}


def _ended_by_us(outcome: Outcome, *, cut: bool) -> ApiError | None:
    """Return why we ended a request; None when its client did."""
    if outcome.cancelled:
        return RequestCancelled("an operator of this server cancelled the request")
    return ShuttingDown("shutting down; ask again shortly") if cut else None


def read_exchange(request: Named, read: Callable[[Named], _Read]) -> _Read:
    """Return the request's exchange. Raises InvalidRequest.

    curl says that it sends a form when it is not told otherwise.
    """
    kind = request.headers.get("content-type")
    if kind and "json" not in (kind := kind.lower()) and "x-www-form-urlencoded" not in kind:
        raise InvalidRequest("the body must be JSON (content-type: application/json)")
    try:
        return read(request)
    except BadBody as error:
        raise refused_body(error) from error


def ticket(request: Named) -> Ticket:
    """Return what a translated answer is called."""
    return Ticket(
        request_id=request_id(request),
        answer_id=secrets.token_hex(12),
        created=int(time.time()),
    )


def _read_whole(body: bytes, answer: Answer, outcome: Outcome) -> None:
    """Read the tail of an unstreamed answer: usage, finish, and the node's own first-token time."""
    try:
        value = loads(body)
    except JSONDecodeError as error:
        raise malformed("the node's answer is not JSON", body) from error
    if not isinstance(value, dict):
        raise malformed("the node's answer is not a JSON object", body)
    outcome.usage = Usage.parse(value.get("usage"))
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        outcome.finish_reason = choices[0].get("finish_reason")
    ttft = answer.header("x-neuron-ttft-ms")
    if ttft is not None and outcome.sent is not None:
        with suppress(ValueError):
            outcome.first_token = outcome.sent + float(ttft) / 1000
