"""What an EXL3 model's files say, and about how much memory it will need.

exllamav3 knows many architectures, and says itself which it does not: here only sizes are read. The
sums are judged, not measured: weights as they lie in the files, the cache at its bits with a scale
of 16 bits for each 32 numbers, and what CUDA and a busy model take besides.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.memory import CONTEXT_MIB
from cortex_neuron.exllama.model_files import read_object
from cortex_neuron.exllama.plan import PAGE, Plan, whole_pages
from cortex_neuron.exllama.template_files import read_templates
from cortex_neuron.exllama.weights import read_weights
from cortex_neuron.harness import ModelFacts

_MIB: Final = 1 << 20
_BITS: Final = {"FP16": 16, "Q8": 8, "Q6": 6, "Q4": 4}
_SCALE_BITS: Final = 16 / 32
#: Hidden states, logits and buffers of a chunk, for each number of a hidden state.
_WORKING_BYTES: Final = 64
_KNOWN: Final = {"exl3", None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exl3Facts(ModelFacts):
    """What a folder says. `device_bytes` is what of the weights goes to devices."""

    device_bytes: int
    kv_elements: int
    hidden: int


def probe_exl3(folder: Path) -> Exl3Facts:
    """Return what the folder says. Blocking. Raises PreflightFailed."""
    weights = read_weights(folder)
    if weights.problems:
        raise weights.problems[0]
    config = read_object(folder, "config.json")
    if config is None:
        raise PreflightFailed("not_found", f"there is no config.json in {folder}")
    said = config.get("quantization_config")
    quantisation = said if isinstance(said, dict) else {}
    method = quantisation.get("quant_method")
    if method not in _KNOWN:
        raise PreflightFailed(
            "unsupported_quant",
            f"the weights are {str(method).upper()}, which the exllamav2 harness reads",
            extra={"quant_method": method, "harness": "exllamav2"},
        )
    hidden, layers = (_size(config, name) for name in ("hidden_size", "num_hidden_layers"))
    heads = _size(config, "num_attention_heads")
    kv_heads = _optional(config, "num_key_value_heads") or heads
    head_dim = _optional(config, "head_dim") or hidden // heads
    bits = quantisation.get("bits")
    names = config.get("architectures")
    elements = 2 * layers * kv_heads * head_dim
    return Exl3Facts(
        architecture=str(names[0]) if isinstance(names, list) and names else "unknown",
        file_bytes=weights.file_bytes,
        name=folder.name,
        quant=None if method is None else f"exl3 {bits}bpw" if bits else "exl3",
        context_length=_optional(config, "max_position_embeddings"),
        vocabulary=_optional(config, "vocab_size"),
        embedding_length=hidden,
        kv_elements_per_token=elements,
        capabilities=("chat", "completion") if read_templates(folder) else ("completion",),
        device_bytes=sum(
            one.bytes for name, one in weights.tensors.items() if "embed_tokens" not in name
        ),
        kv_elements=elements,
        hidden=hidden,
    )


def memory_mb(facts: Exl3Facts, plan: Plan, devices: int, draft: Exl3Facts | None) -> int:
    """Return MiB over all devices together."""
    size = facts.device_bytes + _cache_bytes(facts, plan.cache_mode, plan.cache)
    if draft is not None and plan.draft is not None:
        size += draft.device_bytes + _cache_bytes(draft, plan.draft.cache_mode, plan.cache)
    size += devices * plan.chunk * facts.hidden * _WORKING_BYTES
    return -(-size // _MIB) + devices * CONTEXT_MIB


def longest_cache_of(
    facts: Exl3Facts, plan: Plan, total_mb: int, devices: int, draft: Exl3Facts | None, at_most: int
) -> int:
    """Return the most tokens that a cache may have in `total_mb`, in whole pages; 0: none."""
    small = memory_mb(facts, _with_cache(plan, 0), devices, draft)
    page = _cache_bytes(facts, plan.cache_mode, PAGE)
    if draft is not None and plan.draft is not None:
        page += _cache_bytes(draft, plan.draft.cache_mode, PAGE)
    pages = max(0, total_mb - small) * _MIB // max(1, page)
    return min(pages * PAGE, whole_pages(at_most))


def _with_cache(plan: Plan, cache: int) -> Plan:
    return Plan.from_json({**plan.as_json(), "cache": cache})


def _cache_bytes(facts: Exl3Facts, mode: str, tokens: int) -> int:
    bits = _BITS[mode] + (0 if mode == "FP16" else _SCALE_BITS)
    return int(tokens * facts.kv_elements * bits / 8)


def _size(config: dict[str, Any], name: str) -> int:
    if (found := _optional(config, name)) is None:
        raise PreflightFailed("corrupt", f"config.json does not say {name}")
    return found


def _optional(config: dict[str, Any], name: str) -> int | None:
    """Return a size, which models of several kinds have inside `text_config`."""
    inner = config.get("text_config")
    for said in (config, inner if isinstance(inner, dict) else {}):
        value = said.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
