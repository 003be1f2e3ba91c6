"""Run EXL3 models through exllamav3: the same engine over the successor of exllamav2."""

from collections.abc import Sequence
from pathlib import Path

from cortex_core.errors import InvalidRequest
from cortex_core.wire import Device
from cortex_neuron.exllama.exl3 import Exl3Facts, longest_cache_of, memory_mb, probe_exl3
from cortex_neuron.exllama.harness import ExllamaHarness, can_page, rooms
from cortex_neuron.exllama.options import ExllamaOptions
from cortex_neuron.exllama.plan import Plan
from cortex_neuron.harness import ModelFacts


class ExLlamaV3Harness(ExllamaHarness):
    """EXL3 and 16-bit models through exllamav3."""

    name = "exllamav3"
    extension = "exllamav3_ext"

    def probe(self, path: Path) -> Exl3Facts:
        """Return what the model's folder says. Blocking. Raises PreflightFailed."""
        return probe_exl3(path)

    def check(self, options: ExllamaOptions, devices: Sequence[Device]) -> None:
        """Refuse old cards, and positions that config.json does not say."""
        if not can_page(devices):
            raise InvalidRequest(
                "exllamav3 needs cards of compute capability 8.0 or newer",
                code="unsupported_device",
                param="devices",
            )
        for name in ("rope_scale", "rope_alpha"):
            if getattr(options, name) is not None:
                raise InvalidRequest(
                    f"exllamav3 takes positions from config.json: there is no option {name!r}",
                    code="unsupported_parameter",
                    param=f"options.{name}",
                )

    def memory(self, facts: ModelFacts, plan: Plan, devices: Sequence[Device]) -> tuple[int, ...]:
        """Return MiB on each device, of which each bears an even share. Blocking."""
        needed = memory_mb(_known(facts), plan, len(devices), _draft(plan))
        return tuple(-(-needed // len(devices)) for _ in devices)

    def longest(
        self, facts: ModelFacts, plan: Plan, devices: Sequence[Device], at_most: int
    ) -> int:
        """Return the most tokens that a cache may have on the devices. Blocking."""
        # Each bears an even share, so the smallest card says how much that can be.
        total = min(rooms(devices)) * len(devices)
        return longest_cache_of(_known(facts), plan, total, len(devices), _draft(plan), at_most)


def _draft(plan: Plan) -> Exl3Facts | None:
    return None if plan.draft is None else probe_exl3(Path(plan.draft.path))


def _known(facts: ModelFacts) -> Exl3Facts:
    if not isinstance(facts, Exl3Facts):
        raise TypeError("these facts are of another harness")
    return facts
