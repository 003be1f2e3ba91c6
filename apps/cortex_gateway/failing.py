"""A request that fails: what its client hears of it, and what only the operator does."""

from http import HTTPStatus

import structlog
from sanic import HTTPResponse

from cortex_core.errors import (
    ApiError,
    Unavailable,
    UpstreamMalformed,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from cortex_gateway.accounting import Outcome, reasons
from cortex_gateway.node_answers import NodeRefused, said_by_node
from cortex_gateway.responding import EventResponse
from cortex_uplink import ConnectFailed, FirstByteTimeout, IdleTimeout, UplinkError
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.envelopes import error_answer

log = structlog.get_logger()


async def tell_client(
    request: ClientRequest, error: ApiError, outcome: Outcome, events: EventResponse | None
) -> HTTPResponse | None:
    """Tell the client of `error`, unless it has its whole answer already."""
    outcome.failed(error)
    if request.connection.answered:
        return None
    if events is not None and events.opened:
        await events.fail(error)
        return None
    response = error_answer(request, error)
    response.headers.update(outcome.headers())
    if outcome.recording is not None:
        outcome.recording.add(response.body or b"")
    return response


def tell_replaced(refused: NodeRefused, outcome: Outcome) -> None:
    """Log a failure that no client hears of, because another replica takes the request."""
    log.warning(
        "replica.failed",
        request_id=outcome.request_id,
        model=outcome.model,
        node=outcome.node,
        url=outcome.url,
        code=refused.error.code,
        **reasons(refused),
    )
    outcome.why = None


def lost_node(error: UplinkError, *, began: bool) -> ApiError | NodeRefused:
    """Return what a node that was lost means for the request."""
    match error:
        case FirstByteTimeout():
            return UpstreamTimeout("the node did not begin to answer in time")
        case IdleTimeout():
            return UpstreamTimeout("the node fell silent in the middle of its answer")
        case ConnectFailed():
            return unreachable(error)
        case _ if not began:
            return unreachable(error)
    return UpstreamUnreachable("the node was lost in the middle of its answer")


def malformed(message: str, raw: bytes) -> NodeRefused:
    """Return a node's answer that cannot be used, with its beginning for the operator."""
    return NodeRefused(UpstreamMalformed(message), replaceable=False, fields=said_by_node(raw))


def transient(error: ApiError) -> ApiError:
    """Return a node's refusal as one that may pass: we had reason to believe it could serve."""
    if error.status == HTTPStatus.NOT_FOUND:
        return Unavailable("the model has just left its node", retry_after_secs=1)
    return error


def unreachable(error: UplinkError) -> NodeRefused:
    """Return a node that could not be asked as one whose place another may take."""
    message = "the node serving this model could not be reached"
    return NodeRefused(UpstreamUnreachable(message), replaceable=True, detail=str(error))
