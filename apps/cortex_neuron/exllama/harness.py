"""Run models of the exllama family: what they need, and how to start an engine for one.

`ExLlamaV2Harness` is for EXL2, GPTQ and 16-bit weights; another library has a subclass of its own.
Of the libraries only the name is known here: whether one can be used is found out without importing
it, and its compiled extension is never built from here. An engine answers on a Unix socket in a
folder of its own, which nobody else may enter.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from cortex_core.errors import ApiError, EngineStartFailed, InvalidRequest
from cortex_core.settings import ExllamaSettings
from cortex_core.wire import Device
from cortex_neuron.engine_process import (
    EngineFailed,
    EngineProcess,
    child_environment,
    device_environment,
    python_module,
)
from cortex_neuron.exllama.availability import missing
from cortex_neuron.exllama.layout import Layout
from cortex_neuron.exllama.memory import estimate, longest_cache
from cortex_neuron.exllama.options import ExllamaOptions, merge_options
from cortex_neuron.exllama.plan import PAGE, Plan
from cortex_neuron.exllama.preflight import ExllamaFacts, probe
from cortex_neuron.exllama.refusals import explain, refusal
from cortex_neuron.exllama.sockets import SocketFolder
from cortex_neuron.faults import Ending
from cortex_neuron.harness import Conversation, EngineSpec, ModelFacts, Report
from cortex_neuron.paging import SharedCache

_PAGED_CAPABILITY: Final = (8, 0)
_NEEDS: Final = ("torch", "tokenizers", "jinja2", "llguidance")
_REQUEST_MAX_MB: Final = 1024


@dataclass(frozen=True, slots=True)
class ExllamaEngine:
    """One running engine process. `folder` holds its socket."""

    url: str
    slots: int
    context: int | None
    cache: SharedCache | None
    capabilities: tuple[str, ...]
    process: EngineProcess
    folder: SocketFolder

    @property
    def headers(self) -> Mapping[str, str]:
        """Nothing: who can reach the socket may speak to it."""
        return {}

    @property
    def pid(self) -> int | None:
        """The engine's process id."""
        return self.process.pid

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        """Return a chat or completion as it is: the engine is ours."""
        return Conversation(bodies=(body,))

    def refusal(self, status: int, body: Any) -> ApiError:
        """Return the error that the engine raised."""
        return refusal(status, body)

    async def wait(self) -> Ending:
        """Return, once the process has ended, how it did."""
        ending = await self.process.wait()
        self.folder.remove()
        return ending

    def kill(self, ending: Ending) -> None:
        """End the process this instant; `wait` returns `ending`."""
        self.process.kill(ending)

    async def stop(self, timeout_secs: float) -> None:
        """End the process, by force after `timeout_secs`."""
        await self.process.stop(timeout_secs)
        self.folder.remove()


class ExllamaHarness(ABC):
    """What both libraries have in common: all but what a model's files say and need."""

    name: ClassVar[str]
    extension: ClassVar[str]

    def __init__(
        self, settings: ExllamaSettings, environment: Mapping[str, str] | None = None
    ) -> None:
        self._settings = settings
        self._environment = dict(os.environ if environment is None else environment)

    @abstractmethod
    def probe(self, path: Path) -> ModelFacts:
        """Return what the model's folder says. Blocking. Raises PreflightFailed."""

    @abstractmethod
    def check(self, options: ExllamaOptions, devices: Sequence[Device]) -> None:
        """Refuse what the library cannot do. Raises InvalidRequest."""

    @abstractmethod
    def memory(self, facts: ModelFacts, plan: Plan, devices: Sequence[Device]) -> tuple[int, ...]:
        """Return MiB on each device. Blocking."""

    @abstractmethod
    def longest(
        self, facts: ModelFacts, plan: Plan, devices: Sequence[Device], at_most: int
    ) -> int:
        """Return the most tokens that a cache may have on the devices, in whole pages. Blocking."""

    def unavailable(self) -> str | None:
        """Return why no model can be run this way here, None when one can."""
        return missing(self.name, self.extension, _NEEDS)

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
        """Return how the model shall run, no longer than its devices can hold.

        Raises InvalidRequest for an unknown option, and where there is no GPU.
        """
        if "embedding" in capabilities:
            raise InvalidRequest(
                f"the {self.name} harness makes no embeddings; load the model with another one",
                code="wrong_modality",
                param="capabilities",
            )
        merged = merge_options(self.name, self._settings, options or {}, len(devices))
        if not devices or any(device.kind != "cuda" for device in devices):
            raise InvalidRequest(
                f"{self.name} runs on NVIDIA GPUs, and this is none; choose another harness",
                code="no_cuda_device",
                param="devices",
            )
        self.check(merged, devices)
        plan = self._plan(facts, merged, path, devices)
        return EngineSpec(
            model_id=model_id,
            path=path,
            devices=tuple(devices),
            capabilities=facts.capabilities,
            options={
                **merged.model_dump(mode="json"),
                "context": plan.context,
                "cache_tokens": plan.cache,
            },
        )

    def estimate(self, facts: ModelFacts, spec: EngineSpec) -> int:
        """Return MiB the engine will hold when busy, over all its devices."""
        options = ExllamaOptions.model_validate(dict(spec.options))
        return sum(self.memory(facts, _planned(spec, options), spec.devices))

    async def start(self, spec: EngineSpec, report: Report) -> ExllamaEngine:
        """Return the engine once it answers. Raises EngineStartFailed or PreflightFailed."""
        if (reason := self.unavailable()) is not None:
            raise EngineStartFailed(f"this node cannot run {self.name} now: {reason}")
        options = ExllamaOptions.model_validate(dict(spec.options))
        folder = SocketFolder()
        try:
            process = await EngineProcess.start(
                python_module("cortex_neuron.exllama.engine"),
                self._task(spec, options, folder.socket),
                title=spec.model_id,
                environment=child_environment(self._environment, device_environment(spec.devices)),
                timeout_secs=options.start_timeout_secs,
                report=report,
            )
        except EngineFailed as error:
            folder.remove()
            raise explain(error) from error
        except BaseException:
            folder.remove()
            raise
        ready = process.ready
        return ExllamaEngine(
            url=folder.url,
            slots=ready["slots"],
            context=ready["context"],
            cache=SharedCache(
                tokens=ready["cache"],
                page_tokens=ready["page"],
                context=ready["context"],
                seats=ready["slots"],
            ),
            capabilities=tuple(ready["capabilities"]),
            process=process,
            folder=folder,
        )

    def _plan(
        self, facts: ModelFacts, options: ExllamaOptions, path: Path, devices: Sequence[Device]
    ) -> Plan:
        """Return the plan; where no context is asked for, the longest that fits the devices."""
        context, cache = options.wanted(facts.context_length or PAGE)
        plan = options.plan(path, context, cache)
        if options.context is not None or options.cache_tokens is not None:
            return plan
        longest = self.longest(facts, plan, devices, cache)
        if not longest:
            return plan  # It fits in no length, and the ledger will say by how much.
        return options.plan(path, min(context, max(PAGE, longest - options.ahead)), longest)

    def _task(self, spec: EngineSpec, options: ExllamaOptions, socket: Path) -> dict[str, Any]:
        return {
            "parent_pid": os.getpid(),
            "model_id": spec.model_id,
            "library": self.name,
            "plan": _planned(spec, options).as_json(),
            "socket": str(socket),
            "max_waiting": options.max_waiting,
            "request_max_mb": _REQUEST_MAX_MB,
        }


class ExLlamaV2Harness(ExllamaHarness):
    """EXL2, GPTQ and 16-bit models through exllamav2."""

    name = "exllamav2"
    extension = "exllamav2_ext"

    def probe(self, path: Path) -> ExllamaFacts:
        """Return what the model's folder says. Blocking. Raises PreflightFailed."""
        return probe(path)

    def check(self, options: ExllamaOptions, devices: Sequence[Device]) -> None:
        """Refuse nothing: every option is one of exllamav2's."""

    def memory(self, facts: ModelFacts, plan: Plan, devices: Sequence[Device]) -> tuple[int, ...]:
        """Return MiB on each device. Blocking."""
        found = estimate(
            _known(facts).layout, plan, rooms(devices), draft=_draft(plan), paged=can_page(devices)
        )
        return tuple(one.mib for one in found)

    def longest(
        self, facts: ModelFacts, plan: Plan, devices: Sequence[Device], at_most: int
    ) -> int:
        """Return the most tokens that a cache may have on the devices. Blocking."""
        return longest_cache(
            _known(facts).layout,
            plan,
            rooms(devices),
            draft=_draft(plan),
            paged=can_page(devices),
            at_most=at_most,
        )


def _draft(plan: Plan) -> Layout | None:
    return None if plan.draft is None else probe(Path(plan.draft.path)).layout


def _known(facts: ModelFacts) -> ExllamaFacts:
    if not isinstance(facts, ExllamaFacts):
        raise TypeError("these facts are of another harness")
    return facts


def _planned(spec: EngineSpec, options: ExllamaOptions) -> Plan:
    """Return the plan of a spec: its options say how long, once it is configured."""
    assert options.context is not None  # noqa: S101  # `configure` has set both
    assert options.cache_tokens is not None  # noqa: S101
    return options.plan(spec.path, options.context, options.cache_tokens)


def rooms(devices: Sequence[Device]) -> list[int]:
    """Return MiB of each device."""
    return [device.vram_total_mb or 0 for device in devices]


def can_page(devices: Sequence[Device]) -> bool:
    """Tell whether the cards can do what paging needs; unknown ones can."""
    capabilities = [device.compute_capability for device in devices]
    known = [tuple(map(int, one.split("."))) for one in capabilities if one]
    return all(one >= _PAGED_CAPABILITY for one in known)
