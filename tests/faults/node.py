"""A node as it is, but for its engines, which do as a script says: `python -m … CONFIG`.

A model's options are the script: `claim_mb` of device memory, and what befalls it while it loads.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from cortex_core.errors import ApiError, UpstreamMalformed
from cortex_core.settings import load_neuron_settings
from cortex_core.wire import Device
from cortex_neuron.app import Neuron
from cortex_neuron.engine_process import (
    EngineProcess,
    child_environment,
    device_environment,
    python_module,
)
from cortex_neuron.faults import Ending
from cortex_neuron.harness import Conversation, EngineSpec, ModelFacts, Report
from cortex_neuron.harnesses import Harnesses
from cortex_neuron.paging import SharedCache
from cortex_uplink.logs import configure_logs


@dataclass(frozen=True, slots=True)
class ScriptedEngine:
    """A running scripted engine."""

    process: EngineProcess
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    slots: int = 4
    context: int | None = 4096
    cache: SharedCache | None = None
    capabilities: tuple[str, ...] = ("chat",)

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        """Take it as it is."""
        return Conversation(bodies=(body,))

    def refusal(self, status: int, body: Any) -> ApiError:
        """Say nothing of it."""
        return UpstreamMalformed("the engine failed on this request")

    async def wait(self) -> Ending:
        """Return how it ended."""
        return await self.process.wait()

    def kill(self, ending: Ending) -> None:
        """End it this instant."""
        self.process.kill(ending)

    async def stop(self, timeout_secs: float) -> None:
        """End it."""
        await self.process.stop(timeout_secs)


class ScriptedHarness:
    """Starts scripted engines, whatever the file is."""

    name = "llamacpp"

    def unavailable(self) -> str | None:
        """It can be used everywhere."""
        return None

    def probe(self, path: Path) -> ModelFacts:
        """Know nothing of the file."""
        return ModelFacts(architecture="scripted", file_bytes=1)

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
        """Take the options for the script."""
        return EngineSpec(
            model_id=model_id,
            path=path,
            devices=tuple(devices),
            capabilities=("chat",),
            options=dict(options or {}),
        )

    def estimate(self, facts: ModelFacts, spec: EngineSpec) -> int:
        """Reckon with what it will claim, unless the script has it underestimated."""
        claimed: int = spec.options.get("claim_mb", 1000)
        return int(spec.options.get("estimate_mb", claimed))

    async def start(self, spec: EngineSpec, report: Report) -> ScriptedEngine:
        """Start it as every engine is started."""
        process = await EngineProcess.start(
            python_module("tests.faults.scripted_engine"),
            {
                "parent_pid": os.getpid(),
                "script": dict(spec.options),
                "claim_mb": spec.options.get("claim_mb", 1000),
                "devices": [device.index for device in spec.devices],
            },
            title=spec.model_id,
            environment=child_environment(os.environ, device_environment(spec.devices)),
            timeout_secs=spec.options.get("start_timeout_secs", 20),
            report=report,
        )
        return ScriptedEngine(process, process.ready["url"])


def main(config: Path) -> None:
    """Serve until told to end."""
    settings = load_neuron_settings(config, os.environ)
    harnesses = Harnesses({"llamacpp": ScriptedHarness()})
    configure_logs()
    uvloop.run(Neuron(settings, lambda: settings, harnesses).run())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
