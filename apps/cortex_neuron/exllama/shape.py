"""What config.json says about a model's size, its end tokens and its weights. Pure.

Numbers are found where exllamav2 looks for them, under the same spare names, and are checked before
anything is multiplied with them. What exllamav2 would read wrongly without a word is an Unfit:

1. a scaling in `rope_parameters` alone, which it does not read;
2. a `rope_scaling` of a kind it skips, or with both `type` and `rope_type`;
3. an architecture outside the table, and a quantisation that its kernels do not have.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cortex_neuron.exllama.architectures import ARCHITECTURES, Architecture

#: No model comes near; what is beyond is damage, and would make sums absurd.
_MOST = 1 << 24
_MOST_LAYERS = 4096

_SCALINGS: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "su": ("long_factor", "short_factor"),
    "longrope": ("long_factor", "short_factor"),
    "yarn": ("factor", "original_max_position_embeddings"),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
    "mrope": ("mrope_section",),
    # Skipped by exllamav2; it changes nothing within the length that the model was made for.
    "dynamic": (),
}
_ELSEWHERE = {"exl3": "exllamav3", "gguf": "llamacpp"}
_GPTQ_BITS = 4


class Unfit(Exception):
    """The model cannot be run as it is. `kind` is a kind of preflight failure."""

    def __init__(self, kind: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.kind, self.message, self.facts = kind, message, facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """How the weights are stored. `method` is `exl2`, `gptq`, or `none`; bits are per weight."""

    method: str
    bits: float | None = None
    head_bits: float | None = None
    reordered: bool = False

    @property
    def label(self) -> str | None:
        """What people call it: `exl2 4.0bpw`, `gptq 4bit`."""
        if self.method == "exl2":
            return f"exl2 {self.bits}bpw" if self.bits else "exl2"
        return f"gptq {self.bits or _GPTQ_BITS:.0f}bit" if self.method == "gptq" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model's dimensions. `context_length` is what it was made for, in tokens."""

    architecture: Architecture
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    vocabulary: int
    context_length: int
    experts: int
    query_key_norm: bool
    tied: bool

    @property
    def kv_elements_per_token(self) -> int:
        """Numbers that the cache keeps of one token, over all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim


def read_shape(config: Mapping[str, Any]) -> Shape:
    """Return the dimensions in `config`. Raises Unfit."""
    architecture = _architecture(config)
    read = _Reader(config, architecture.defaults)
    hidden = read.size("hidden_size", "d_model", "n_embd")
    given = read.optional("num_attention_heads", "n_heads", "n_head")
    head_dim = read.optional("head_dim") or (hidden // given if given else 0)
    heads = given or (hidden // head_dim if head_dim else 0)
    if not head_dim or not heads:
        raise Unfit("corrupt", "config.json does not say how many attention heads there are")
    kv_heads = read.optional("num_key_value_heads", "attn_config->kv_n_heads") or heads
    inner = architecture.inner_factor
    intermediate = (
        read.optional("intermediate_size", "ffn_config->ffn_hidden_size", "n_inner")
        or (inner * hidden if inner else None)
        or read.size("intermediate_size")
    )
    experts = 0
    if architecture.experts:
        experts = read.size("num_local_experts", "ffn_config->moe_num_experts", "num_experts")
        intermediate = read.optional("moe_intermediate_size") or intermediate
    layers = read.size("num_hidden_layers", "n_layers", "n_layer")
    rotary = config.get("partial_rotary_factor", 1.0)
    if isinstance(rotary, bool) or not isinstance(rotary, int | float) or not 0 < rotary <= 1:
        raise Unfit("corrupt", f"config.json says partial_rotary_factor is {rotary!r}")
    if heads % kv_heads:
        raise Unfit("corrupt", f"config.json says {heads} heads share {kv_heads} of the cache")
    if layers > _MOST_LAYERS or experts > _MOST_LAYERS:
        raise Unfit("corrupt", f"config.json claims {layers} layers and {experts} experts")
    return Shape(
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        intermediate=intermediate,
        heads=heads,
        kv_heads=1 if architecture.one_kv_head else kv_heads,
        head_dim=head_dim,
        rotary_dim=int(head_dim * rotary),
        vocabulary=read.size("vocab_size"),
        context_length=read.optional(
            "max_sequence_length",
            "model_max_length",
            "max_position_embeddings",
            "max_seq_len",
            "n_positions",
        )
        or 2048,
        experts=experts,
        query_key_norm=bool(config.get("use_qk_norm", architecture.query_key_norm)),
        tied=bool(config.get("tie_word_embeddings", False)) or architecture.head_is_embedding,
    )


def read_quantisation(config: Mapping[str, Any]) -> Quantisation:
    """Return how config.json says the weights are stored. Raises Unfit."""
    said = config.get("quantization_config")
    if not isinstance(said, dict):
        return Quantisation(method="none")
    method = str(said.get("quant_method", "")).lower()
    if harness := _ELSEWHERE.get(method):
        raise Unfit(
            "unsupported_quant",
            f"the weights are {method.upper()}, which the {harness} harness reads",
            quant_method=method,
            harness=harness,
        )
    bits = said.get("bits")
    bits = bits if isinstance(bits, int | float) and not isinstance(bits, bool) else None
    if method == "exl2":
        head = said.get("head_bits", said.get("lm_head_bits"))
        head = head if isinstance(head, int | float) else None
        return Quantisation(method="exl2", bits=bits, head_bits=head)
    if method == "gptq" and bits in (None, _GPTQ_BITS):
        return Quantisation(method="gptq", bits=bits, reordered=bool(said.get("desc_act", False)))
    how = f"GPTQ of {bits} bits" if method == "gptq" else f"{method or 'an unknown method'!r}"
    raise Unfit(
        "unsupported_quant",
        f"the weights are quantised with {how}; exllamav2 reads EXL2, GPTQ of 4 bits and "
        "16-bit weights",
        quant_method=method,
    )


def check_positions(config: Mapping[str, Any]) -> None:
    """Raise Unfit when exllamav2 would place tokens otherwise than the model was trained."""
    read = _Reader(config, {})
    scaling = read.table("rope_scaling")
    new = read.table("rope_parameters")
    if new is not None and not _is_taken_over(config, new, scaling):
        raise Unfit(
            "unsupported_rope",
            "config.json scales its rotary embedding by rope_parameters, which exllamav2 does not "
            "read; write rope_theta and rope_scaling into config.json as well",
        )
    if not scaling:
        return
    kind, other = scaling.get("type"), scaling.get("rope_type")
    if kind and other:
        raise Unfit(
            "unsupported_rope",
            "rope_scaling in config.json has both 'type' and 'rope_type', which exllamav2 refuses; "
            "remove one",
        )
    name = str(kind or other or "default")
    wanted = _SCALINGS.get(name)
    if wanted is None:
        raise Unfit("unsupported_rope", f"exllamav2 does not know the rope_scaling {name!r}")
    lacking = [key for key in wanted if scaling.get(key) is None]
    if name in ("su", "longrope") and "original_max_position_embeddings" not in config:
        lacking.append("original_max_position_embeddings")
    if lacking:
        raise Unfit("unsupported_rope", f"the rope_scaling {name!r} lacks {', '.join(lacking)}")


def end_tokens(*documents: Mapping[str, Any] | None) -> tuple[int, ...]:
    """Return every end token that the documents (config, generation_config) name, each once."""
    found: dict[int, None] = {}
    for document in documents:
        for table in (document or {}, (document or {}).get("text_config")):
            said = table.get("eos_token_id") if isinstance(table, dict) else None
            for one in said if isinstance(said, list) else [said]:
                if isinstance(one, int) and not isinstance(one, bool) and one >= 0:
                    found[one] = None
    return tuple(found)


def _architecture(config: Mapping[str, Any]) -> Architecture:
    named = config.get("architectures")
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise Unfit("corrupt", "config.json does not name one architecture")
    found = ARCHITECTURES.get(named[0])
    if found is not None and found.vision is not None:
        vision = config.get("vision_config")
        if not isinstance(vision, dict) or vision.get("model_type") != found.vision:
            found = None
    if found is None:
        raise Unfit(
            "unsupported_arch",
            f"exllamav2 does not know the architecture {named[0]!r}",
            architecture=named[0],
        )
    return found


def _is_taken_over(
    config: Mapping[str, Any], new: Mapping[str, Any], old: Mapping[str, Any] | None
) -> bool:
    """Whether the engine turns as `new` wants: by the old keys, or by a base alone, which it takes.

    What one kind of layer has and another has not is in neither.
    """
    read = _Reader(config, {})
    base, kind = read.raw("rope_theta"), new.get("rope_type", "default")
    scaled = (old or {}).get("rope_type", (old or {}).get("type", "default"))
    return (
        kind == scaled
        and isinstance(new.get("rope_theta"), int | float)
        and (base is None or base == new["rope_theta"])
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Looks values up as exllamav2 does: under several names, then inside `text_config`."""

    config: Mapping[str, Any]
    defaults: Mapping[str, int | float]

    def raw(self, *names: str) -> Any:
        for name in (*names, *(f"text_config->{name}" for name in names)):
            at: Any = self.config
            for part in name.split("->"):
                at = at.get(part) if isinstance(at, dict) else None
            if at is not None:
                return at
        return None

    def table(self, name: str) -> Mapping[str, Any] | None:
        found = self.raw(name)
        return found if isinstance(found, dict) else None

    def optional(self, *names: str) -> int | None:
        found = self.raw(*names)
        if found is None:
            found = self.defaults.get(names[0])
        if found is None:
            return None
        if isinstance(found, float) and found.is_integer():
            found = int(found)
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found <= _MOST:
            raise Unfit("corrupt", f"config.json says {names[0]} is {found!r}")
        return found

    def size(self, *names: str) -> int:
        found = self.optional(*names)
        if not found:
            raise Unfit("corrupt", f"config.json does not say {names[0]}")
        return found
