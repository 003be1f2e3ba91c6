"""Say what a model on this machine's disk is, whichever harness it is for, and what is wrong.

Everything here blocks on the disk. Only headers and small files are read.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex_core.errors import PreflightFailed
from cortex_core.settings import LlamaCppSettings
from cortex_neuron.exllama.model_files import read_object
from cortex_neuron.exllama.preflight import Examination, ExllamaFacts, examine
from cortex_neuron.gguf import capabilities, read_facts
from cortex_neuron.harness import ModelFacts
from cortex_neuron.harnesses import harness_of
from cortex_neuron.llamacpp.harness import LlamaCppHarness
from cortex_neuron.sources.choose import shards_of

_PLAIN = {"none": "16-bit", "exl2": "EXL2", "gptq": "GPTQ"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """One model. `facts` are None when a problem hides them; `details` are for display."""

    path: Path
    format: str
    harness: str
    file_bytes: int
    facts: ModelFacts | None
    details: Mapping[str, Any]
    problems: tuple[PreflightFailed, ...]
    warnings: tuple[str, ...] = ()


def inspect(path: Path) -> Inspection:
    """Return what lies at `path`: a GGUF file or a folder. Raises PreflightFailed for neither."""
    if path.is_dir():
        return _folder(path)
    return _gguf(path)


def _gguf(path: Path) -> Inspection:
    try:
        facts = LlamaCppHarness(LlamaCppSettings()).probe(path)
        first = read_facts(path.with_name(shards_of(path.name)[0]))
    except PreflightFailed as problem:
        if problem.kind == "not_found":
            raise
        return Inspection(
            path=path,
            format="GGUF",
            harness="llamacpp",
            file_bytes=path.stat().st_size,
            facts=None,
            details={},
            problems=(problem,),
        )
    warnings = []
    if "completion" in capabilities(first) and not first.has_chat_template:
        warnings.append("there is no chat template: only completions are served")
    return Inspection(
        path=path,
        format="GGUF",
        harness="llamacpp",
        file_bytes=facts.file_bytes,
        facts=facts,
        details={"layers": first.block_count, "chat_template": first.has_chat_template},
        problems=(),
        warnings=tuple(warnings),
    )


def _folder(path: Path) -> Inspection:
    found = examine(path)
    harness = "exllamav2"
    with suppress(PreflightFailed):  # `examine` has it among its problems
        harness = harness_of(path)
    method = found.facts.quantisation.method if found.facts else None
    if method is None and found.quantisation is not None:
        method = found.quantisation.method
    named = _PLAIN.get(method) if method else None
    return Inspection(
        path=path,
        format=named or _said(path),
        harness=harness,
        file_bytes=found.file_bytes,
        facts=found.facts,
        details=_details(found),
        problems=found.problems,
        warnings=found.warnings,
    )


def _details(found: Examination) -> dict[str, Any]:
    shape, facts = found.shape, found.facts
    details: dict[str, Any] = {}
    if shape is not None:
        details |= {
            "architecture": shape.architecture.name,
            "context_length": shape.context_length,
            "layers": shape.layers,
            "hidden": shape.hidden,
            "heads": shape.heads,
            "kv_heads": shape.kv_heads,
            "head_dim": shape.head_dim,
            "vocabulary": shape.vocabulary,
        }
        if shape.experts:
            details["experts"] = shape.experts
    if isinstance(facts, ExllamaFacts):
        details |= {
            "end_tokens": list(facts.end_tokens),
            "chat_template": facts.has_chat_template,
            "tensor_parallel": facts.layout.indivisible is None,
        }
    return details


def _said(path: Path) -> str:
    """Return the quantisation that config.json names, where it is none of ours."""
    try:
        said = (read_object(path, "config.json") or {}).get("quantization_config")
    except PreflightFailed:
        return "unknown"
    return str((said if isinstance(said, dict) else {}).get("quant_method", "unknown")).upper()
