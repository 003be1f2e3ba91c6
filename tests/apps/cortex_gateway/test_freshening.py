"""An engine that outlasted many loads starts anew, where it was, and only if it can."""

from typing import Any

from cortex_core.errors import Unavailable
from cortex_core.settings import Catalogue, NeuronEntry
from cortex_core.wire import Device as WireDevice
from cortex_core.wire import Discovery, Health, ModelInfo
from cortex_gateway.fleet import Fleet
from cortex_gateway.freshening import Freshener
from cortex_router import Load


class Desk:
    """Takes orders like a dispatcher and its clients, and writes them down."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.asked: list[str] = []
        self.clients = {"n1": self}
        self._refuses = refuses

    async def unload(self, model: str, drain_secs: float) -> None:
        """Let it go."""
        self.asked.append(f"unload {model} {drain_secs}")
        if self._refuses:
            raise Unavailable("no")

    async def load(self, decision: Load) -> None:
        """Bring it back."""
        self.asked.append(f"load {decision.model} {decision.node} {decision.devices}")


def fleet() -> Fleet:
    """One node with one loaded model on its second device."""
    made = Fleet(Catalogue.model_validate({"models": [{"id": "m", "vram_mb": 4}]}))
    state = made.add(NeuronEntry(name="n1", endpoint="http://127.0.0.1:1"), {})
    state.healthy = True
    state.discovery = Discovery(
        hostname="h", devices=(WireDevice(index=0), WireDevice(index=1, vram_total_mb=8))
    )
    state.health = Health(load_cycles=60)
    state.models = {"m": ModelInfo(id="m", status="loaded", devices=(1,), loaded_in_cycle=1)}
    made.observed(state)
    return made


async def freshen(desk: Any, model: str) -> list[str]:
    """Order it and return what was asked of the node."""
    await Freshener(fleet(), desk).freshen("n1", model)
    return list(desk.asked)


async def test_it_goes_and_comes_back_on_the_same_devices() -> None:
    """In this order."""
    assert await freshen(Desk(), "m") == ["unload m 0", "load m n1 (1,)"]


async def test_a_node_that_refuses_keeps_its_model() -> None:
    """And nothing else happens."""
    assert await freshen(Desk(refuses=True), "m") == ["unload m 0"]


async def test_a_model_that_has_left_meanwhile_is_left_alone() -> None:
    """The picture was old."""
    assert await freshen(Desk(), "other") == []


def test_the_view_knows_how_many_loads_an_engine_outlasted() -> None:
    """What the node says reaches the decision."""
    node = fleet().view().node("n1")

    assert node is not None
    assert node.load_cycles == 60
    assert node.replicas[0].loaded_in_cycle == 1
