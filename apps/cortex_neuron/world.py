"""What the one writer needs of the world outside of its state: files, engines and readings."""

from collections.abc import Callable, Mapping
from typing import Protocol

from cortex_core.wire import LoadRequest, Progress
from cortex_neuron.discovery import Held
from cortex_neuron.hanging import Answer
from cortex_neuron.harness import Engine, Report


class Prepared(Protocol):
    """A model whose files are here and read: what it needs, and how to start it."""

    @property
    def harness_name(self) -> str:
        """The harness that its files need."""

    @property
    def required_mb(self) -> int:
        """MiB of the whole model, at work."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it serves."""

    async def start(self, devices: tuple[int, ...], report: Report) -> Engine:
        """Start the engine; raises an ApiError when it cannot."""


class Workshop(Protocol):
    """What the registry needs from the world: files, engines and readings."""

    def check_harness(self, request: LoadRequest) -> None:
        """Raise InvalidRequest when the request names a harness that cannot be used here."""

    async def prepare(self, request: LoadRequest, report: Callable[[Progress], None]) -> Prepared:
        """Fetch and read the model. Raises PreflightFailed."""

    async def measure(self, engines: Mapping[str, Engine]) -> Mapping[str, Held]:
        """Return what each engine holds on each device, after refreshing the ledger's reading."""

    def trouble(self, devices: tuple[int, ...]) -> str | None:
        """Return what is wrong with one of `devices`, None when all are well."""

    async def ask_health(self, engine: Engine) -> Answer:
        """Return what the engine says of its health."""
