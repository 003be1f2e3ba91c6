"""The harnesses of a node: which there are, why one cannot be used, and which one a model needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cortex_core.errors import InvalidRequest
from cortex_core.settings import NeuronSettings
from cortex_neuron.exllama.exl3_harness import ExLlamaV3Harness
from cortex_neuron.exllama.harness import ExLlamaV2Harness
from cortex_neuron.exllama.model_files import read_object
from cortex_neuron.harness import Harness
from cortex_neuron.llamacpp.harness import LlamaCppHarness

_BY_QUANT = {"exl3": "exllamav3"}


@dataclass(frozen=True, slots=True)
class Harnesses:
    """Those that can be used, by name, and why others that were asked for cannot."""

    usable: Mapping[str, Harness]
    unusable: Mapping[str, str] = field(default_factory=dict)

    def named(self, name: str) -> Harness:
        """Return a harness. Raises InvalidRequest when this node has none of that name."""
        if (found := self.usable.get(name)) is not None:
            return found
        if (reason := self.unusable.get(name)) is not None:
            raise InvalidRequest(
                f"this node cannot use the harness {name!r}: {reason}",
                code="harness_unavailable",
                param="harness",
            )
        raise InvalidRequest(
            f"this node has no harness {name!r}, only: {', '.join(self.usable) or 'none'}",
            code="unknown_harness",
            param="harness",
        )


def make_harnesses(settings: NeuronSettings) -> Harnesses:
    """Return the harnesses that `settings` name."""
    makers: dict[str, Callable[[], Harness]] = {
        "llamacpp": lambda: LlamaCppHarness(settings.harness.llamacpp),
        "exllamav2": lambda: ExLlamaV2Harness(settings.harness.exllamav2),
        "exllamav3": lambda: ExLlamaV3Harness(settings.harness.exllamav3),
    }
    usable: dict[str, Harness] = {}
    unusable: dict[str, str] = {}
    for name in settings.harnesses:
        harness: Harness = makers[name]()
        if (reason := harness.unavailable()) is None:
            usable[name] = harness
        else:
            unusable[name] = reason
    return Harnesses(usable, unusable)


def harness_of(path: Path) -> str:
    """Return the name of the harness that a model's files are for. Blocking.

    Raises PreflightFailed when they cannot be read.
    """
    if not path.is_dir():
        return "llamacpp"
    quantisation = (read_object(path, "config.json") or {}).get("quantization_config")
    method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
    return _BY_QUANT.get(str(method).lower(), "exllamav2")
