"""A registry in a world made of memory: engines that start and end as a test says."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cortex_core.errors import ApiError, InvalidRequest
from cortex_core.settings import AdmissionSettings, NeuronTimeouts
from cortex_core.wire import LoadRequest, Progress, Residency, Waiting
from cortex_neuron.faults import Ending, Fault
from cortex_neuron.hanging import Answer
from cortex_neuron.harness import Conversation, Report
from cortex_neuron.ledger import Ledger
from cortex_neuron.paging import SharedCache
from cortex_neuron.registry import Registry
from cortex_neuron.room import Room
from cortex_neuron.supervision import Restarts
from cortex_router import Device, Status, Swapping


class FakeEngine:
    """An engine that ends when it is told to."""

    url = "http://127.0.0.1:1"
    headers: Mapping[str, str] = {}
    pid = 1
    slots = 2
    context: int | None = 512
    cache: SharedCache | None = None
    capabilities = ("chat",)

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.ending = Ending(Fault.CRASHED, "killed")
        self.silent = False

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        """Take everything as it is."""
        return Conversation(bodies=(body,))

    def refusal(self, status: int, body: object) -> ApiError:
        """Refuse without a reason."""
        return InvalidRequest("no")

    async def wait(self) -> Ending:
        """Return once it has ended."""
        await self.ended.wait()
        return self.ending

    def kill(self, ending: Ending) -> None:
        """End it for a reason."""
        self.ending = ending
        self.ended.set()

    async def stop(self, timeout_secs: float) -> None:
        """End it."""
        self.ended.set()


@dataclass(slots=True)
class FakeWorld:
    """Models of known size, starts that can be held, refusals, and a record of it all."""

    ledger: Ledger
    sizes: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, ApiError] = field(default_factory=dict)
    hold: asyncio.Event | None = None
    said: list[str] = field(default_factory=list)
    engines: dict[str, FakeEngine] = field(default_factory=dict)
    total: int = 20
    cache: SharedCache | None = None
    foreign: int = 0
    broken: str | None = None
    mute: bool = False
    failures: list[ApiError] = field(default_factory=list)

    def check_harness(self, request: LoadRequest) -> None:
        """Any will do."""

    async def prepare(
        self, request: LoadRequest, report: Callable[[Progress], None]
    ) -> "FakePrepared":
        """Know the size, or refuse."""
        self.said.append(f"prepare {request.model_id}")
        if (refusal := self.refusals.get(request.model_id)) is not None:
            raise refusal
        return FakePrepared(self, request.model_id, self.sizes.get(request.model_id, 8))

    async def measure(self, engines: Mapping[str, FakeEngine]) -> Mapping[str, Mapping[int, int]]:
        """Read what runs: every engine takes exactly its size; strangers take what they took."""
        taken = {
            model: {0: self.sizes.get(model, 8)}
            for model, engine in self.engines.items()
            if not engine.ended.is_set()
        }
        held = sum(mb for one in taken.values() for mb in one.values())
        self.ledger.observe({0: self.total - self.foreign - held}, taken)
        return {model: mb for model, mb in taken.items() if model in engines}

    def trouble(self, devices: tuple[int, ...]) -> str | None:
        """Return what a test says is wrong with the device."""
        return self.broken

    async def ask_health(self, engine: FakeEngine) -> Answer:
        """Tell whether the test lets it answer."""
        return Answer.NONE if engine.silent else Answer.WELL


@dataclass(slots=True)
class FakePrepared:
    """A model ready to start."""

    world: FakeWorld
    model: str
    required_mb: int
    capabilities: tuple[str, ...] = ("chat",)
    harness_name: str = "fake"

    async def start(self, devices: tuple[int, ...], report: Report) -> FakeEngine:
        """Start it, when the world lets it."""
        self.world.said.append(f"start {self.model}")
        if not self.world.mute:
            report(1, 4)
        if self.world.failures:
            raise self.world.failures.pop(0)
        if self.world.hold is not None:
            await self.world.hold.wait()
        engine = self.world.engines[self.model] = FakeEngine()
        engine.cache = self.world.cache
        return engine


@dataclass(slots=True)
class Desk:
    """A registry and its world."""

    world: FakeWorld
    registry: Registry

    def status(self, model: str) -> Status | None:
        """Return the status of a model."""
        found = self.registry.residents.get(model)
        return None if found is None else found.status


def desk(
    *,
    restarts: Restarts | None = None,
    swapping: Swapping | None = None,
    lapse_secs: float = 60.0,
    hang_secs: float = 20.0,
    **world: object,
) -> Desk:
    """A node with one device of 20 MiB."""
    ledger = Ledger({0: 20})
    made = FakeWorld(ledger, **world)  # type: ignore[arg-type]
    registry = Registry(
        workshop=made,  # type: ignore[arg-type]
        ledger=ledger,
        room=Room(ledger, (Device(index=0, total_mb=20),)),
        admission=AdmissionSettings(),
        timeouts=NeuronTimeouts(hang=hang_secs),
        swapping=swapping,
        restarts=restarts,
        lapse_secs=lapse_secs,
    )
    return Desk(made, registry)


async def until(check: Callable[[], bool]) -> None:
    """Let tasks run until `check` holds, for a second at most."""
    async with asyncio.timeout(1):
        while not check():  # noqa: ASYNC110  # any condition, bounded above
            await asyncio.sleep(0.001)


def load(model: str, *, wait: bool = True, evict: tuple[str, ...] = ()) -> LoadRequest:
    """A load order."""
    return LoadRequest(model_id=model, wait=wait, evict=evict)


def intent(
    model: str,
    *,
    wait: bool = False,
    count: int = 1,
    oldest_secs: float = 0.0,
    **residency: Any,
) -> LoadRequest:
    """A load that takes its turn."""
    return LoadRequest(
        model_id=model,
        wait=wait,
        waiting=Waiting(count=count, oldest_secs=oldest_secs),
        residency=Residency(**residency),
    )
