"""Run GGUF models: what they need, and how to start an engine for one.

What an engine holds when it is busy, in bytes:

    file + cells × kv elements × bytes of the cache type      weights and KV cache
         + ubatch × (cells × 4 + embedding length × 64)       masks and activations of one batch
         + vocabulary × 512                                   tables of the tokenizer
         + 48 MiB + prompt_cache_mb                           Python, llama.cpp and its HTTP server

and on a GPU also `ubatch × vocabulary × 4` for logits and 400 MiB a device for its CUDA context.
The CPU form was fitted to the resident memory of SmolLM2-135M Q4_1 after long and concurrent
prompts (0 to 25 % above it); the GPU terms follow llama.cpp's graph and are not measured.
"""

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cortex_core.errors import ApiError, EngineStartFailed, PreflightFailed
from cortex_core.settings import LlamaCppSettings
from cortex_core.wire import Device
from cortex_neuron.engine_process import (
    EngineFailed,
    EngineProcess,
    child_environment,
    device_environment,
    python_module,
)
from cortex_neuron.faults import Ending
from cortex_neuron.gguf import capabilities as capabilities_of
from cortex_neuron.gguf import read_facts
from cortex_neuron.harness import Conversation, EngineSpec, ModelFacts, Report
from cortex_neuron.llamacpp.conversing import conversation
from cortex_neuron.llamacpp.options import LlamaCppOptions, merge_options
from cortex_neuron.llamacpp.program import find_program
from cortex_neuron.llamacpp.refusals import refusal
from cortex_neuron.paging import SharedCache
from cortex_neuron.sources.choose import shards_of

_MIB = 1 << 20
_CACHE_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32}
_CACHE_BYTES |= {"q5_0": 22 / 32, "q4_1": 20 / 32, "q4_0": 18 / 32}
_CPU_BASE_MIB, _GPU_CONTEXT_MIB = 48, 400
_UNKNOWN_ARCHITECTURE = re.compile(r"unknown model architecture: '([\w.-]+)'")


@dataclass(frozen=True, slots=True)
class LlamaCppEngine:
    """One running engine process."""

    url: str
    headers: Mapping[str, str]
    slots: int
    context: int | None
    cache: SharedCache | None
    capabilities: tuple[str, ...]
    knows_tools: bool
    process: EngineProcess

    @property
    def pid(self) -> int:
        """The engine's process id."""
        return self.process.pid

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        """Return a chat or completion as llama.cpp takes it. Raises InvalidRequest."""
        return conversation(body, knows_tools=self.knows_tools)

    def refusal(self, status: int, body: Any) -> ApiError:
        """Return llama.cpp's refusal in our words."""
        return refusal(status, body)

    async def wait(self) -> Ending:
        """Return, once the process has ended, how it did."""
        return await self.process.wait()

    def kill(self, ending: Ending) -> None:
        """End the process this instant; `wait` returns `ending`."""
        self.process.kill(ending)

    async def stop(self, timeout_secs: float) -> None:
        """End the process, by force after `timeout_secs`."""
        await self.process.stop(timeout_secs)


class LlamaCppHarness:
    """GGUF through llama.cpp."""

    name = "llamacpp"

    def __init__(
        self,
        settings: LlamaCppSettings,
        environment: Mapping[str, str] | None = None,
        program: str | None = None,
    ) -> None:
        self._settings = settings
        self._environment = dict(os.environ if environment is None else environment)
        self._program = program or find_program(self._environment)

    def unavailable(self) -> str | None:
        """Return why no model can be run this way here, None when one can."""
        if self._program is None and find_spec("xllamacpp") is None:
            return (
                "not installed: xllamacpp (the extra 'cortex[llamacpp]' has it), "
                "and there is no program llama-server on PATH"
            )
        return None

    def probe(self, path: Path) -> ModelFacts:
        """Return what the file and its shards say. Blocking. Raises PreflightFailed."""
        facts, *others = [read_facts(path.with_name(name)) for name in shards_of(path.name)]
        return ModelFacts(
            architecture=facts.architecture,
            file_bytes=sum(one.file_bytes for one in (facts, *others)),
            name=facts.name,
            quant=facts.quant,
            context_length=facts.context_length,
            vocabulary=facts.vocabulary,
            embedding_length=facts.embedding_length,
            kv_elements_per_token=facts.kv_elements_per_token,
            capabilities=capabilities_of(facts),
        )

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
        """Return how the model shall run. Raises InvalidRequest for an unknown option."""
        merged = merge_options(self._settings, options or {}, facts.context_length)
        asked = ("embedding",) if "embedding" in capabilities else ()
        return EngineSpec(
            model_id=model_id,
            path=path,
            devices=tuple(devices),
            capabilities=tuple(dict.fromkeys((*facts.capabilities, *asked))),
            options=merged.model_dump(),
        )

    def estimate(self, facts: ModelFacts, spec: EngineSpec) -> int:
        """Return MiB the engine will hold when busy; the module's text has the formula."""
        options = LlamaCppOptions.model_validate(dict(spec.options))
        element = (_CACHE_BYTES[options.cache_type_k] + _CACHE_BYTES[options.cache_type_v]) / 2
        cells, vocabulary = options.cells, facts.vocabulary or 0
        size = facts.file_bytes
        size += int(cells * (facts.kv_elements_per_token or 0) * element)
        size += options.ubatch * (cells * 4 + (facts.embedding_length or 0) * 64)
        size += vocabulary * 512
        if not spec.on_cpu:
            size += options.ubatch * vocabulary * 4 + _GPU_CONTEXT_MIB * _MIB * len(spec.devices)
        return -(-size // _MIB) + _CPU_BASE_MIB + options.prompt_cache_mb

    async def start(self, spec: EngineSpec, report: Report) -> LlamaCppEngine:
        """Return the engine once it answers. Raises EngineStartFailed or PreflightFailed."""
        options = LlamaCppOptions.model_validate(dict(spec.options))
        secret = secrets.token_urlsafe(32)
        report(0, None)
        process = await start_child(
            _task(spec, options, secret) | {"program": self._program},
            title=spec.model_id,
            environment=child_environment(self._environment, _visible(spec)),
            timeout_secs=options.start_timeout_secs,
        )
        slots, context = process.ready["slots"], process.ready["context"]
        shared = SharedCache(tokens=options.cells, page_tokens=1, context=context, seats=slots)
        return LlamaCppEngine(
            url=process.ready["url"],
            headers={"authorization": f"Bearer {secret}"},
            slots=slots,
            context=context,
            cache=shared if options.shared_context else None,
            capabilities=spec.capabilities,
            knows_tools=process.ready["knows_tools"],
            process=process,
        )


async def start_child(
    task: Mapping[str, Any], *, title: str, environment: Mapping[str, str], timeout_secs: float
) -> EngineProcess:
    """Start llama.cpp on `task`. Raises EngineStartFailed, or PreflightFailed for a bad file."""
    try:
        return await EngineProcess.start(
            python_module("cortex_neuron.llamacpp.engine"),
            task,
            title=title,
            environment=environment,
            timeout_secs=timeout_secs,
        )
    except EngineFailed as error:
        raise _explain(error) from error


def _task(spec: EngineSpec, options: LlamaCppOptions, secret: str) -> dict[str, Any]:
    embedding = "embedding" in spec.capabilities
    generative = "completion" in spec.capabilities
    return {
        **options.model_dump(exclude={"start_timeout_secs", "shared_context"}),
        "parent_pid": os.getpid(),
        "model_id": spec.model_id,
        "path": str(spec.path),
        "secret": secret,
        "cells": options.cells,
        "unified": options.shared_context,
        "threads": options.threads or max(1, len(os.sched_getaffinity(0)) - 1),
        "gpu_layers": 0 if spec.on_cpu else options.gpu_layers,
        "embedding": embedding,
        "pooling": options.pooling or ("mean" if embedding and generative else None),
        "warmup": True,
        "reorder": True,
    }


def _visible(spec: EngineSpec) -> dict[str, str]:
    """Return the variables that show the engine its devices and no others."""
    return {
        **device_environment(spec.devices),
        "GGML_NO_BACKTRACE": "1",
        # Threads of an engine wait for each other by spinning. For long, that is ruin as soon as
        # two engines share the cores (14 tokens/s instead of 23, two cores); not at all, it is
        # ruin for one alone (20 instead of 90).
        "GOMP_SPINCOUNT": "1000",
    }


def _explain(error: EngineFailed) -> EngineStartFailed | PreflightFailed:
    """Return what is known about why the engine refused: some refusals are about the file."""
    tail = "\n".join(error.tail)
    if found := _UNKNOWN_ARCHITECTURE.search(tail):
        return PreflightFailed(
            "unsupported_arch", f"this node's llama.cpp does not know the architecture {found[1]!r}"
        )
    if "model is corrupted or incomplete" in tail or "gguf_init_from" in tail:
        return PreflightFailed(
            "corrupt", "llama.cpp cannot read the model's file; delete it and fetch it again"
        )
    return error
