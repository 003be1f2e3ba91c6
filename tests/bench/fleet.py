"""What is measured: a neuron, a cortex, and the same engine once more without either of them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cortex_core.settings import LlamaCppSettings
from cortex_core.wire import Discovery
from cortex_neuron.llamacpp.harness import LlamaCppEngine, LlamaCppHarness
from tests.bench.asking import CHAT
from tests.fleet.conversations import row, say
from tests.fleet.processes import Daemon, Workbench, workbench

MODEL = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One neuron behind one cortex, and how the model runs there."""

    neuron: Daemon
    cortex: Daemon
    path: Path
    options: dict[str, Any]

    def load(self) -> None:
        """Have the model loaded. Raises RuntimeError when it cannot be."""
        answer = self.cortex.http.post(f"{self.cortex.url}{CHAT}", json=say(MODEL))
        if answer.is_error:
            raise RuntimeError(answer.text)

    def engine_pid(self) -> int:
        """Return the engine's process, the neuron's only child."""
        (engine,) = self.neuron.descendants()
        return int(engine.pid)


@contextmanager
def fleet(path: Path, options: dict[str, Any]) -> Iterator[Running]:
    """Start both daemons; nothing is loaded yet."""
    with TemporaryDirectory(prefix="cortex-bench-") as folder, workbench(Path(folder)) as bench:
        yield start(bench, path, options)


def start(bench: Workbench, path: Path, options: dict[str, Any]) -> Running:
    """Start a neuron and a cortex which knows one model."""
    entry = {"id": MODEL, "source": str(path), "options": options}
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry])
    return Running(neuron=neuron, cortex=cortex, path=path, options=options)


@asynccontextmanager
async def direct_engine(running: Running) -> AsyncIterator[LlamaCppEngine]:
    """Start the engine as the neuron of `running` did: same harness, devices and options."""
    said = running.neuron.http.get(f"{running.neuron.url}/discovery").json()
    loaded = row(running.neuron, MODEL)
    if loaded is None:
        raise RuntimeError("the model is not loaded on the neuron")
    harness = LlamaCppHarness(LlamaCppSettings())
    spec = harness.configure(
        await asyncio.to_thread(harness.probe, running.path),
        model_id=MODEL,
        path=running.path,
        devices=[d for d in Discovery.model_validate(said).devices if d.index in loaded["devices"]],
        options=running.options,
    )
    engine = await harness.start(spec, lambda _done, _total: None)
    try:
        yield engine
    finally:
        await engine.stop(5)
