"""What is checked: a neuron on this machine's GPUs, a cortex in front of it, one model."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil

from cortex_core.settings import ExllamaSettings
from cortex_core.wire import Device
from cortex_neuron.exllama.harness import ExLlamaV2Harness, can_page, rooms
from cortex_neuron.exllama.memory import DeviceMemory, estimate
from cortex_neuron.exllama.options import ExllamaOptions
from cortex_neuron.exllama.plan import Plan
from cortex_neuron.exllama.preflight import ExllamaFacts
from cortex_neuron.nvml import Nvml
from tests.fleet.conversations import row
from tests.fleet.processes import Daemon, NeverHappened, eventually, workbench
from tests.gpu.machine import used_mb
from tests.gpu.verdicts import Failed

MODEL = "gpu-check"
STREAMS = 8
#: Of the model that cortex knows: room for eight answers together.
OPTIONS: Mapping[str, Any] = {"context": 2048, "cache_tokens": 8192, "parallel": STREAMS}
PROMPT, EXPECTED = "The capital of France is", "Paris"
#: What other users of a card take and give back meanwhile.
BOUND_MB = 64
LOAD_SECS = 900.0
_BACK_SECS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Everything the checks act on. `devices` are the node's GPUs, the first is used by default."""

    folder: Path
    facts: ExllamaFacts
    nvml: Nvml
    devices: tuple[Device, ...]
    neuron: Daemon
    cortex: Daemon

    @property
    def first(self) -> Device:
        """The device that one-device checks use."""
        return self.devices[0]

    def load(self, options: Mapping[str, Any] = OPTIONS, **more: Any) -> httpx.Response:
        """Ask the node to load the model under the checks' name, and return its answer."""
        body = {
            "model_id": MODEL,
            "source": str(self.folder),
            "harness": "exllamav2",
            "devices": [self.first.index],
            "options": dict(options),
            **more,
        }
        return self.neuron.http.post(f"{self.neuron.url}/models/load", json=body, timeout=LOAD_SECS)

    def loaded(self, options: Mapping[str, Any] = OPTIONS, **more: Any) -> dict[str, Any]:
        """Load the model anew, and return the node's row of it. Raises Failed."""
        self.unload()
        answer = self.load(options, **more)
        if answer.status_code != httpx.codes.OK:
            raise Failed(f"loading was answered {answer.status_code}: {answer.text[:400]}")
        found = row(self.neuron, MODEL)
        if found is None or found["harness"] != "exllamav2":
            raise Failed(f"the model is not run by exllamav2: {found}")
        return found

    def unload(self) -> None:
        """Unload the model; none is no matter."""
        self.neuron.http.post(
            f"{self.neuron.url}/models/unload", json={"model_id": MODEL}, timeout=60
        )

    def engines(self) -> list[psutil.Process]:
        """Return the engines' processes."""
        return [
            one
            for one in self.neuron.descendants()
            if "cortex_neuron.exllama.engine" in one.cmdline()
        ]

    def complete(self, daemon: Daemon, prompt: str = PROMPT, **more: Any) -> httpx.Response:
        """Return the answer to a greedy completion."""
        body = {"model": MODEL, "prompt": prompt, "temperature": 0, "max_tokens": 24, **more}
        return daemon.http.post(f"{daemon.url}/v1/completions", json=body, timeout=300)

    def sane(self, daemon: Daemon) -> str:
        """Return a greedy answer that says what everybody knows. Raises Failed."""
        answer = self.complete(daemon)
        if answer.status_code != httpx.codes.OK:
            raise Failed(f"{PROMPT!r} was answered {answer.status_code}: {answer.text[:400]}")
        text: str = answer.json()["choices"][0]["text"]
        if EXPECTED not in text:
            raise Failed(f"{PROMPT!r} was completed by {text!r}")
        return text

    def used(self) -> int:
        """Return MiB in use on all devices."""
        return used_mb(self.nvml, [device.index for device in self.devices])

    def back_to(self, before_mb: int) -> int:
        """Return MiB in use, once no more than before. Raises Failed when it never is."""
        try:
            eventually(
                lambda: self.used() <= before_mb + BOUND_MB and not self.engines(),
                within=_BACK_SECS,
            )
        except NeverHappened:
            raise Failed(
                f"{self.used()} MiB are in use, {before_mb} before, and engines are left: "
                f"{[one.pid for one in self.engines()]}"
            ) from None
        return self.used()

    def plan(self, options: Mapping[str, Any]) -> tuple[Plan, DeviceMemory]:
        """Return how the node would load it on the first device, and what it would reckon."""
        harness = ExLlamaV2Harness(ExllamaSettings())
        spec = harness.configure(
            self.facts,
            model_id=MODEL,
            path=self.folder,
            devices=[self.first],
            options=options,
        )
        said = ExllamaOptions.model_validate(dict(spec.options))
        assert said.context is not None
        assert said.cache_tokens is not None
        plan = said.plan(self.folder, said.context, said.cache_tokens)
        (memory,) = estimate(
            self.facts.layout, plan, rooms([self.first]), paged=can_page([self.first])
        )
        return plan, memory


@contextmanager
def stage(folder: Path, nvml: Nvml, logs: Path) -> Iterator[Stage]:
    """Start both daemons; nothing is loaded yet. Their logs are kept in `logs`."""
    harness = ExLlamaV2Harness(ExllamaSettings(), os.environ)
    facts = harness.probe(folder)
    logs.mkdir(parents=True, exist_ok=True)
    with (
        TemporaryDirectory(prefix="run-", dir=logs) as run,
        workbench(Path(run)) as bench,
    ):
        neuron = bench.neuron()
        entry = {
            "id": MODEL,
            "source": str(folder),
            "harness": "exllamav2",
            "options": dict(OPTIONS),
        }
        cortex = bench.cortex({"n1": neuron.url}, [entry])
        try:
            yield Stage(
                folder=folder,
                facts=facts,
                nvml=nvml,
                devices=nvml.devices,
                neuron=neuron,
                cortex=cortex,
            )
        finally:
            for daemon in (neuron, cortex):
                (logs / f"{daemon.name}.log").write_bytes(daemon.log_path.read_bytes())
