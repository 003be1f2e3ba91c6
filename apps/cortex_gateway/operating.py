"""What an operator may order: load a model somewhere, or let it go."""

import asyncio
from typing import Any

from cortex_core.errors import (
    ApiError,
    InvalidRequest,
    ModelNotFound,
    Unavailable,
    UpstreamUnreachable,
)
from cortex_gateway.dispatch import Dispatcher, refusal
from cortex_gateway.explaining import explanation
from cortex_gateway.fleet import Fleet, now
from cortex_gateway.neuron_client import NodeError
from cortex_router import Await, Load, Refuse, RouteRequest, Serve, decide


class Operator:
    """Carries out orders on the fleet."""

    def __init__(self, fleet: Fleet, dispatcher: Dispatcher) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher

    async def load(self, name: str, node: str | None) -> tuple[int, dict[str, Any]]:
        """Start a load, on `node` if one is named: 200 when it is there, 202 on its way."""
        self._known(node)
        model = self._fleet.view().resolve(name)
        request = RouteRequest(model=name, node=node)
        policy = self._dispatcher.policy
        decision = decide(self._fleet.view(), request, policy, now())
        if isinstance(decision, Load):
            await self._dispatcher.load(decision)
            decision = decide(self._fleet.view(), request, policy, now())
        match decision:
            case Serve(node=where):
                return 200, {"status": "loaded", "model": model, "node": where}
            case Refuse():
                raise refusal(decision)
            case Await(reason="no_room") | Load(once_idle=(_, *_)):
                raise Unavailable(
                    f"there is no room for {model!r}: what is loaded is in use", retry_after_secs=10
                )
            case Await(node=where, reason=reason):
                return 202, {"status": "loading", "model": model, "node": where, "reason": reason}
            case Load(node=where):
                return 202, {"status": "loading", "model": model, "node": where}

    def explain(self, name: str, node: str | None) -> dict[str, Any]:
        """Return what would be done with a request for a model now, and why. Nothing is done."""
        self._known(node)
        request = RouteRequest(model=name, node=node)
        return explanation(self._fleet.view(), request, self._dispatcher.policy, now())

    async def unload(self, name: str, node: str | None, drain_secs: float) -> dict[str, Any]:
        """Unload a model from `node`, or from wherever it is."""
        self._known(node)
        model = self._fleet.view().resolve(name)
        where = [
            state.entry.name
            for state in self._fleet.nodes.values()
            if (row := state.models.get(model)) is not None
            and row.status not in {"unloaded", "failed"}
            and node in (None, state.entry.name)
        ]
        if not where:
            raise ModelNotFound(f"the model {model!r} is not loaded anywhere", param="model")
        await asyncio.gather(*(self._unload(model, one, drain_secs) for one in where))
        return {"status": "unloaded", "model": model, "nodes": sorted(where)}

    async def _unload(self, model: str, node: str, drain_secs: float) -> None:
        try:
            await self._dispatcher.clients[node].unload(model, drain_secs)
        except NodeError as error:
            raise _node_failed(node, error) from error
        await self._dispatcher.watchers[node].poll()

    def _known(self, node: str | None) -> None:
        if node is not None and node not in self._fleet.nodes:
            names = ", ".join(sorted(self._fleet.nodes)) or "none"
            raise InvalidRequest(f"there is no node {node!r}; nodes: {names}", param="node")


def _node_failed(node: str, error: NodeError) -> ApiError:
    if error.status is None:
        return UpstreamUnreachable(f"the node {node!r} could not be reached")
    return Unavailable(f"the node {node!r} refused (HTTP {error.status})", retry_after_secs=5)
