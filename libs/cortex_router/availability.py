"""Whether a node can be asked to load a model, and how long until one that arrives is up."""

from cortex_router.decision import RouteRequest
from cortex_router.lifecycle import Status
from cortex_router.nodes import Replica
from cortex_router.view import Entry

RETRY_RECOVERING_SECS = 2.0
#: A load that failed, or a state we do not understand: not to be disturbed by another load.
_NOT_RETRIED = frozenset({Status.FAILED, Status.UNKNOWN})


def out_reason(entry: Entry, model: str, request: RouteRequest) -> str | None:
    """Return why a node cannot be asked to load the model now, None when it can."""
    node = entry.node
    if not node.healthy:
        return "unhealthy"
    if node.draining:
        return "draining"
    if node.name in request.avoid:
        return "failed"
    held = node.by_model.get(model)
    return "load_failed" if held is not None and held.status in _NOT_RETRIED else None


def eta_secs(replica: Replica) -> float | None:
    """Return how long until an arriving replica serves, as far as it is known."""
    if replica.eta_secs is not None:
        return replica.eta_secs
    return RETRY_RECOVERING_SECS if replica.status is Status.RECOVERING else None
