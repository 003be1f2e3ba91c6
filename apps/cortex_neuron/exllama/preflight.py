"""Look a model folder over before anything of it reaches a device.

Only config files and the headers of the weights are read. Everything wrong is found, not only the
first thing; a model with a problem is never loaded. A warning is what an operator should know.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.layout import Layout, lay_out
from cortex_neuron.exllama.model_files import read_object, read_text
from cortex_neuron.exllama.shape import (
    Quantisation,
    Shape,
    Unfit,
    check_positions,
    end_tokens,
    read_quantisation,
    read_shape,
)
from cortex_neuron.exllama.weights import Weights, read_weights
from cortex_neuron.harness import ModelFacts

CONFIG = "config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExllamaFacts(ModelFacts):
    """What a model folder says. `layout` has what `memory.estimate` needs."""

    layout: Layout
    quantisation: Quantisation
    end_tokens: tuple[int, ...]
    has_chat_template: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What was found in a folder: `facts` unless a problem hides them."""

    facts: ExllamaFacts | None
    shape: Shape | None
    quantisation: Quantisation | None
    file_bytes: int
    problems: tuple[PreflightFailed, ...]
    warnings: tuple[str, ...]


def probe(folder: Path) -> ExllamaFacts:
    """Return what the folder says. Blocking. Raises PreflightFailed with every problem in it."""
    found = examine(folder)
    if found.problems:
        first, *others = found.problems
        if not others:
            raise first
        said = [{"kind": one.kind, "message": one.message} for one in found.problems]
        raise PreflightFailed(first.kind, first.message, extra={**first.extra, "problems": said})
    assert found.facts is not None  # noqa: S101  # without a problem there are facts
    return found.facts


def examine(folder: Path) -> Examination:
    """Return everything that can be found out about the folder. Blocking.

    Raises PreflightFailed when the folder itself cannot be read.
    """
    weights = read_weights(folder)
    problems = list(weights.problems)
    documents: dict[str, Mapping[str, Any] | None] = {}
    for name in (CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        try:
            documents[name] = read_object(folder, name)
        except PreflightFailed as problem:
            documents[name] = None
            problems.append(problem)
            continue
        if documents[name] is None and name in (CONFIG, "tokenizer.json"):
            problems.append(
                PreflightFailed(
                    "not_found",
                    f"there is no {name} in {folder}; exllamav2 needs it",
                    extra={"file": name},
                )
            )
    config = documents[CONFIG]
    shape = quantisation = layout = None
    if config is not None:
        shape = _found(problems, read_shape, config)
        quantisation = _found(problems, read_quantisation, config)
        _found(problems, check_positions, config)
        if _wants_images(config) and not (folder / "preprocessor_config.json").is_file():
            name = "preprocessor_config.json"
            problems.append(
                PreflightFailed(
                    "not_found",
                    f"there is no {name} in {folder}; exllamav2 needs it for a model with images",
                    extra={"file": name},
                )
            )
        # Tensors of a file that cannot be read would be missed as well.
        if shape and quantisation and not weights.problems:
            layout = _found(problems, lay_out, shape, weights.tensors, quantisation)
    ends = end_tokens(config, documents["generation_config.json"])
    template = _has_template(folder, documents["tokenizer_config.json"])
    facts = None
    if layout is not None and shape is not None and quantisation is not None:
        facts = _facts(folder, weights, layout, quantisation, ends, template=template)
    return Examination(
        facts=facts,
        shape=shape,
        quantisation=quantisation,
        file_bytes=weights.file_bytes,
        problems=tuple(problems),
        warnings=tuple(_warnings(shape, ends, template=template)),
    )


def _facts(
    folder: Path,
    weights: Weights,
    layout: Layout,
    quantisation: Quantisation,
    ends: tuple[int, ...],
    *,
    template: bool,
) -> ExllamaFacts:
    shape = layout.shape
    if quantisation.method != layout.method:
        # Older files do not say it in config.json.
        quantisation = Quantisation(method=layout.method)
    return ExllamaFacts(
        architecture=shape.architecture.name,
        file_bytes=weights.file_bytes,
        name=folder.name,
        quant=quantisation.label,
        context_length=shape.context_length,
        vocabulary=shape.vocabulary,
        embedding_length=shape.hidden,
        kv_elements_per_token=shape.kv_elements_per_token,
        capabilities=("chat", "completion") if template else ("completion",),
        layout=layout,
        quantisation=quantisation,
        end_tokens=ends,
        has_chat_template=template,
    )


def _found(problems: list[PreflightFailed], read: Any, *arguments: Any) -> Any:
    """Return what `read` does, or None and one more problem."""
    try:
        return read(*arguments)
    except Unfit as unfit:
        problems.append(PreflightFailed(unfit.kind, unfit.message, extra=unfit.facts))
        return None


def _wants_images(config: Mapping[str, Any]) -> bool:
    vision = config.get("vision_config")
    return isinstance(vision, dict) and bool(vision.get("model_type"))


def _has_template(folder: Path, tokenizer_config: Mapping[str, Any] | None) -> bool:
    if (tokenizer_config or {}).get("chat_template"):
        return True
    for name in ("chat_template.jinja", "chat_template.json"):
        try:
            if read_text(folder, name):
                return True
        except PreflightFailed:
            continue
    return False


def _warnings(shape: Shape | None, ends: tuple[int, ...], *, template: bool) -> list[str]:
    found = []
    if not ends:
        found.append("no file names an end token: answers would go on up to max_tokens")
    elif shape is not None and (beyond := [one for one in ends if one >= shape.vocabulary]):
        found.append(f"the end token {beyond[0]} lies outside the vocabulary")
    if not template:
        found.append("there is no chat template: only completions are served")
    if shape is not None and shape.architecture.sees_images:
        found.append("its images are not served: the vision model is not loaded")
    return found
