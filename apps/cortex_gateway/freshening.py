"""Start engines anew that have outlasted many loads of their neighbours, while nobody uses them."""

import asyncio

import structlog

from cortex_core.errors import ApiError
from cortex_gateway.dispatch import Dispatcher
from cortex_gateway.fleet import Fleet, now
from cortex_gateway.neuron_client import NodeError
from cortex_router import Explanation, Load, due_for_restart

log = structlog.get_logger()

LOOK_SECS = 30.0


class Freshener:
    """Looks at every node now and then; one engine a node at a time."""

    def __init__(self, fleet: Fleet, dispatcher: Dispatcher) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECS)
            for node in self._fleet.view().nodes:
                if model := due_for_restart(node, self._dispatcher.defrag_after_cycles, now()):
                    await self.freshen(node.name, model)

    async def freshen(self, node: str, model: str) -> None:
        """Unload a model and load it again on the same devices."""
        view = self._fleet.view()
        seen, profile = view.node(node), view.profile(model)
        replica = seen.holds(model) if seen is not None else None
        if replica is None or profile is None:
            return
        log.info("model.freshened", node=node, model=model)
        again = Load(
            node=node,
            model=model,
            devices=replica.devices,
            profile=profile,
            explanation=Explanation(model, lambda: ()),
        )
        try:
            await self._dispatcher.clients[node].unload(model, drain_secs=0)
            await self._dispatcher.load(again)
        except (ApiError, NodeError, KeyError) as error:
            # The model loads when it is next asked for, like any other that is not there.
            log.warning("model.freshening_failed", node=node, model=model, error=str(error))
