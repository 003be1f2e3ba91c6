"""Where a model is on its way, and which nodes can be asked to load it."""

from dataclasses import dataclass

from cortex_router.decision import RouteRequest
from cortex_router.lifecycle import Status
from cortex_router.nodes import Replica
from cortex_router.view import Entry, FleetView

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


def could_load(view: FleetView, model: str, request: RouteRequest) -> list[Entry]:
    """Return the nodes that can be asked to load the model now, in no order.

    The same as asking `out_reason` of each: only those that know the model are asked.
    """
    avoid = request.avoid | {
        name
        for name in view.holding(model).idle
        if view.entries[name].node.by_model[model].status in _NOT_RETRIED
    }
    if request.node is not None:
        entry = view.entries.get(request.node)
        entries = [] if entry is None else [entry]
    else:
        entries = list(view.entries.values())
    return [
        entry
        for entry in entries
        if (node := entry.node).healthy and not node.draining and node.name not in avoid
    ]


@dataclass(frozen=True, slots=True)
class Arrival:
    """A replica that does not serve yet: in which status, and for how long, if that is known."""

    node: str
    reason: str
    eta_secs: float | None


def arrival(view: FleetView, model: str, request: RouteRequest) -> Arrival | None:
    """Return where the model is up the soonest, as far as one can tell; equals by name."""
    found: list[tuple[float, str, Arrival]] = []
    for name in view.holding(model).arriving:
        if name in request.avoid or request.node not in (None, name):
            continue
        replica = view.entries[name].node.by_model[model]
        loaded = replica.status is Status.LOADED
        reason = "not_servable" if loaded else replica.status.value
        eta = _eta_secs(replica)
        at = float("inf") if eta is None else eta
        found.append((at, name, Arrival(name, reason, eta)))
    return min(found, key=lambda one: one[:2])[2] if found else None


def _eta_secs(replica: Replica) -> float | None:
    if replica.eta_secs is not None:
        return replica.eta_secs
    return RETRY_RECOVERING_SECS if replica.status is Status.RECOVERING else None
