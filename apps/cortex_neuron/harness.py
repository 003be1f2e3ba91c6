"""The seam between a node and what runs a model.

A harness turns a file into an endpoint that speaks OpenAI, and back into nothing:

1. `probe` reads what the file says about itself, without loading it;
2. `configure` merges the node's settings with the model's own options into an `EngineSpec`;
3. `estimate` says what that would cost, over all its devices together (each bears an even share);
4. `start` brings up a child process and returns its `Engine`; `Engine.stop` ends it, and with the
   process all of its memory.

`probe` blocks on the disk and belongs into a thread; `start`, `wait` and `stop` belong on the loop.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cortex_core.errors import ApiError
from cortex_core.wire import Device
from cortex_neuron.faults import Ending
from cortex_neuron.paging import SharedCache

Report = Callable[[int, int | None], None]
"""Told how far a load is: done, and in all where that is known; in bytes or whatever it counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a model's files say about it. None is unknown."""

    architecture: str
    file_bytes: int
    name: str | None = None
    quant: str | None = None
    context_length: int | None = None
    vocabulary: int | None = None
    embedding_length: int | None = None
    kv_elements_per_token: int | None = None
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One model as it shall run. `options` are complete and checked: settings, then overrides."""

    model_id: str
    path: Path
    devices: tuple[Device, ...]
    capabilities: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def on_cpu(self) -> bool:
        """Whether no accelerator takes part."""
        return all(device.kind == "cpu" for device in self.devices)


class Rewriter(Protocol):
    """Makes of one stream, piece by piece as it arrives, what clients get."""

    def feed(self, data: bytes) -> bytes:
        """Return what `data` becomes, as far as that is known yet. Raises FrameTooLarge."""

    def finish(self) -> bytes:
        """Return what is left when the stream has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What to send to an engine, and how to read its stream.

    `bodies` are to be tried in turn for as long as the model's chat template refuses them.
    `rewriting` makes the rewriter of the stream; None: clients get it as it comes.
    """

    bodies: tuple[Mapping[str, Any], ...]
    rewriting: Callable[[], Rewriter] | None = None

    def rewriter(self) -> Rewriter | None:
        """Return what a stream has to go through, for one stream."""
        return None if self.rewriting is None else self.rewriting()


class Engine(Protocol):
    """A running model."""

    @property
    def url(self) -> str:
        """Where it answers: `http://127.0.0.1:port`."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What every request to it must carry; never shown to anyone."""

    @property
    def pid(self) -> int | None:
        """The engine's process, whose memory counts as the model's; None: not one of ours."""

    @property
    def slots(self) -> int:
        """How many requests it works on together."""

    @property
    def context(self) -> int | None:
        """Longest context of one request, in tokens."""

    @property
    def cache(self) -> SharedCache | None:
        """The cache that its requests share; None: each of them has its own."""

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it serves: `chat`, `completion`, `embedding`."""

    def conversation(self, body: Mapping[str, Any]) -> "Conversation":
        """Return a chat or completion as this engine takes it. Raises InvalidRequest."""

    def refusal(self, status: int, body: Any) -> ApiError:
        """Return what a client is told of a refusal: its status, and its JSON body (None: none)."""

    async def wait(self) -> Ending:
        """Return, once the process has ended, how it did."""

    def kill(self, ending: Ending) -> None:
        """End the process this instant: it is of no use any more. `wait` returns `ending`."""

    async def stop(self, timeout_secs: float) -> None:
        """End the process, by force after `timeout_secs`. It is gone when this returns."""


class Harness(Protocol):
    """A way to run models."""

    @property
    def name(self) -> str:
        """The word for it in configuration and on the wire."""

    def unavailable(self) -> str | None:
        """Return why no model can be run this way on this machine, None when one can."""

    def probe(self, path: Path) -> ModelFacts:
        """Return what the files say. Blocking. Raises PreflightFailed."""

    def configure(
        self,
        facts: ModelFacts,
        *,
        model_id: str,
        path: Path,
        devices: Sequence[Device],
        capabilities: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> EngineSpec:
        """Return how the model shall run. Raises InvalidRequest for an option it does not have."""

    def estimate(self, facts: ModelFacts, spec: EngineSpec) -> int:
        """Return MiB the engine will hold when it is busy, over all devices together."""

    async def start(self, spec: EngineSpec, report: Report) -> Engine:
        """Return the engine once it answers. Cancelling leaves nothing.

        Raises EngineStartFailed, or PreflightFailed for files that the engine refuses.
        """
