"""A node with two GPUs in a file and engines that fail on demand, and what must hold after it."""

import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.chaos.outcomes import Kind, Outcome
from tests.chaos.stage import Misbehaved
from tests.fake_nvml.gpus import H100, RTX_3090, Gpus
from tests.fleet.conversations import Talk, ask, in_flight
from tests.fleet.processes import (
    Daemon,
    NeverHappened,
    Workbench,
    eventually,
    free_port,
    workbench,
    write_toml,
)

#: Short enough to be waited for.
HANG_SECS = 1.0
TIMEOUTS = {"first_byte": 30.0, "idle": 20.0, "drain": 0.5, "unload": 1.0, "hang": HANG_SECS}
STORY: dict[str, Any] = {"text": "Tell a story.", "max_tokens": 400}
CLAIM_MB = 4000
_names = itertools.count()


@dataclass(slots=True)
class Stage:
    """One node, its GPUs, and the file that its models claim to be."""

    bench: Workbench
    node: Daemon
    gpus: Gpus
    file: Path
    sockets: int = 0

    def load(self, **script: Any) -> tuple[str, httpx.Response]:
        """Load a model with this script; return its id and the answer."""
        model = f"m{next(_names)}"
        return model, self.ask_load(model, **script)

    def ask_load(self, model: str, *, evict: tuple[str, ...] = (), **script: Any) -> httpx.Response:
        """Ask for a load and return the answer."""
        body = {
            "model_id": model,
            "source": str(self.file),
            "devices": script.pop("devices", [0]),
            "evict": list(evict),
            "wait": script.pop("wait", True),
            "options": {"claim_mb": CLAIM_MB, **script},
        }
        return self.node.http.post(f"{self.node.url}/models/load", json=body)

    def loaded(self, **script: Any) -> str:
        """Load a model that has to come up; return its id."""
        model, answer = self.load(**script)
        if answer.status_code != httpx.codes.OK:
            raise Misbehaved(f"it did not load: {answer.text}")
        return model

    def unload(self, model: str) -> float:
        """Unload a model; return how long it took."""
        began = time.monotonic()
        body = {"model_id": model, "drain_secs": 0}
        self.node.http.post(f"{self.node.url}/models/unload", json=body)
        return time.monotonic() - began

    def engines(self) -> list[psutil.Process]:
        """Return the processes of engines."""
        return [
            one
            for one in self.node.descendants()
            if one.status() != psutil.STATUS_ZOMBIE
            and "tests.faults.scripted_engine" in one.cmdline()
        ]

    def engine(self) -> psutil.Process:
        """Return the only one."""
        (found,) = self.engines()
        return found

    def device(self, index: int) -> dict[str, Any]:
        """Return what the node says of a device."""
        devices = self.node.http.get(f"{self.node.url}/health").json()["devices"]
        return dict(devices[index])

    def served_again(self, model: str, since: float, within: float) -> float:
        """Wait until a good request is served; return seconds since the fault."""
        eventually(
            lambda: ask(self.node, model).status_code == httpx.codes.OK,
            within=within,
            every=0.05,
            what=f"not served again within {within} s",
        )
        return time.monotonic() - since

    def reset(self) -> None:
        """Mend the machine, and unload all."""
        self.gpus.set(delay_ms=None, init_error=None)
        for number, card in enumerate((RTX_3090, H100)):
            self.gpus.plug(number, card, error=None)
        with suppress(NeverHappened, Misbehaved, httpx.HTTPError):
            self.settles()

    def settles(self) -> None:
        """Unload all; check that no process, memory, seat or socket is left."""
        for one in self.node.http.get(f"{self.node.url}/models").json():
            self.unload(one["id"])
        eventually(lambda: self.engines() == [], what="an engine is left")
        eventually(lambda: self.node.http.get(f"{self.node.url}/models").json() == [], within=35)
        base = [int(str(one["used"])) for one in (RTX_3090, H100)]
        eventually(
            lambda: [self.device(n).get("vram_used_mb") for n in (0, 1)] == base,
            what="memory is left",
        )
        if any(self.device(n)["vram_reserved_mb"] for n in (0, 1)):
            raise Misbehaved("memory is still promised")
        eventually(
            lambda: psutil.Process(self.node.pid).num_fds() <= self.sockets + 6,
            what="descriptors are left",
        )


@contextmanager
def gpu_environment(gpus: Gpus) -> Iterator[None]:
    """Have daemons that start in the block on the machine of `gpus`."""
    before = {key: os.environ.get(key) for key in gpus.environment}
    os.environ.update(gpus.environment)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def start_node(bench: Workbench, name: str = "node", **settings: Any) -> Daemon:
    """Start a node whose engines are scripted."""
    port = free_port()
    values = {"port": port, "model_dirs": [], "timeouts": TIMEOUTS, **settings}
    config = write_toml(bench.folder / f"{name}.toml", values)
    daemon = Daemon(
        name,
        [sys.executable, "-m", "tests.faults.node", str(config)],
        bench.folder / f"{name}.log",
        f"http://127.0.0.1:{port}",
        "neuron.ready",
    )
    bench.daemons.append(daemon)
    daemon.start()
    return daemon


@contextmanager
def stage(folder: Path, library: Path) -> Iterator[Stage]:
    """Put up a node with two different GPUs."""
    gpus = Gpus(folder / "gpus", library)
    gpus.plug(0, RTX_3090)
    gpus.plug(1, H100)
    file = folder / "model.gguf"
    file.write_bytes(b"GGUF")
    with gpu_environment(gpus), workbench(folder) as bench:
        node = start_node(bench)
        made = Stage(bench, node, gpus, file)
        made.node.http.get(f"{node.url}/health")
        made.sockets = psutil.Process(node.pid).num_fds()
        yield made


def under_way(
    stage: Stage, model: str, act: Callable[[], object]
) -> tuple[Outcome, Outcome, float]:
    """Have a whole and a streamed answer under way, act, and return their ends and the moment."""
    talk = Talk(stage.node, model, **STORY)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, stage.node, model, **STORY)
        talk.under_way()
        eventually(lambda: in_flight(stage.node, model) == 2)
        began = time.monotonic()
        act()
        whole, told = asking.result(), talk.end()
    if told.errors():
        streamed = Outcome(kind=Kind.EVENT, code=str(told.errors()[-1].get("code")))
    else:
        streamed = Outcome(kind=Kind.SERVED if told.done else Kind.SILENT)
    return outcome_of(whole), streamed, began


def outcome_of(answer: httpx.Response) -> Outcome:
    """Return what a whole answer amounts to."""
    if answer.status_code == httpx.codes.OK:
        return Outcome(kind=Kind.SERVED)
    return Outcome(
        kind=Kind.REFUSED,
        status=answer.status_code,
        code=answer.json()["error"]["code"],
        retry="retry-after" in answer.headers,
    )


def fire(stage: Stage, model: str, trigger: str) -> None:
    """Send a prompt that sets the fault off, and do not care what becomes of it."""
    talk = Talk(stage.node, model, text=trigger)
    talk.end()
