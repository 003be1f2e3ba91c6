"""The architectures that exllamav2 0.3.2 runs, and where each keeps its weights.

An architecture that is not in the table would be loaded as a Llama, with a line on stdout and
nonsense for an answer: it is refused instead. Tensors are named here as they are once `renames`
has been applied; `*` stands for an expert's number, and names in one tuple are alternatives.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

Names: TypeAlias = tuple[str, ...]


def _each(prefix: str, words: str) -> tuple[Names, ...]:
    return tuple((f"{prefix}{word}",) for word in words.split())


_ATTENTION = _each("self_attn.", "q_proj k_proj v_proj o_proj")
_MLP = _each("mlp.", "gate_proj up_proj down_proj")
_NORMS = (("input_layernorm",), ("post_attention_layernorm",))
_GEMMA_NORMS = _each(
    "", "input_layernorm post_attention_layernorm pre_feedforward_layernorm "
    "post_feedforward_layernorm"
)  # fmt: skip
_MIXTRAL_MLP = _each("block_sparse_moe.", "experts.*.w1 experts.*.w3 experts.*.w2 gate")


def _fused(key: str, words: str = "q_proj k_proj v_proj") -> tuple[Names, ...]:
    return (
        *((f"self_attn.{key}", f"self_attn.{word}") for word in words.split()),
        ("self_attn.o_proj",),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """Where the weights are, and what config.json may leave out.

    `mlp` is gate, up and down, or up and down alone. `head_is_embedding`: there is no lm_head of
    its own. `tensor_parallel`: it can be split over devices inside its layers. `vision`: the only
    kind of vision model with which the name is known.
    """

    name: str
    prefix: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    attention: tuple[Names, ...] = _ATTENTION
    mlp: tuple[Names, ...] = _MLP
    attention_norms: tuple[Names, ...] = _NORMS[:1]
    mlp_norms: tuple[Names, ...] = _NORMS[1:]
    fused_mlp: str | None = None
    positions: str | None = None
    head_is_embedding: bool = False
    experts: bool = False
    gated: bool = True
    tensor_parallel: bool = False
    parallel_blocks: bool = False
    rotary: bool = True
    rope_tables: int = 1
    one_kv_head: bool = False
    query_key_norm: bool = False
    sees_images: bool = False
    vision: str | None = None
    inner_factor: int | None = None
    defaults: Mapping[str, int | float] = field(default_factory=dict)

    def rename(self, name: str) -> str:
        """Return what the engine calls the tensor `name` of a file."""
        for old, new in self.renames:
            if old.startswith("$"):
                name = f"${name}".replace(old, new) if name.startswith(old[1:]) else name
            else:
                name = name.replace(old, new)
        return name


_LLAMA = Architecture(name="LlamaForCausalLM", tensor_parallel=True)
_PLAIN = replace(_LLAMA, tensor_parallel=False)
_GEMMA = replace(_PLAIN, head_is_embedding=True)
_GEMMA2 = replace(
    _GEMMA, attention_norms=_GEMMA_NORMS[:2], mlp_norms=_GEMMA_NORMS[2:]
)  # fmt: skip
_COHERE = replace(_GEMMA, mlp_norms=(), parallel_blocks=True)
_GPT2 = replace(
    _GEMMA,
    attention=_fused("c_attn"),
    mlp=_each("mlp.", "c_fc c_proj"),
    attention_norms=(("ln_1",),),
    mlp_norms=(("ln_2",),),
    positions="model.wpe",
    gated=False,
    rotary=False,
)
_MISTRAL_IMAGES = replace(_PLAIN, prefix="language_model.", sees_images=True, vision="pixtral")
_QWEN_IMAGES = replace(_PLAIN, sees_images=True)

_DBRX_RENAMES = (
    ("transformer.", "model."), (".blocks.", ".layers."),
    (".ffn.experts.mlp.", ".block_sparse_moe.experts."),
    (".ffn.router.layer.", ".block_sparse_moe.gate."),
    (".norm_attn_norm.norm_1.", ".input_layernorm."),
    (".norm_attn_norm.norm_2.", ".post_attention_layernorm."),
    (".norm_attn_norm.attn.", ".self_attn."), (".out_proj.", ".o_proj."),
    (".norm_f.", ".norm."), (".wte.", ".embed_tokens."),
)  # fmt: skip
_BIGCODE_RENAMES = (
    ("transformer.ln_f", "model.norm"), ("transformer.", "model."),
    (".attn.c_proj.", ".self_attn.o_proj."), (".attn.", ".self_attn."), (".h.", ".layers."),
    (".wte.", ".embed_tokens."),
)  # fmt: skip
_GPT2_RENAMES = (
    ("$ln_f.", "model.norm."), (".attn.c_proj.", ".self_attn.o_proj."), (".attn.", ".self_attn."),
    ("$h.", "model.layers."), ("$wte.", "model.embed_tokens."), ("$wpe.", "model.wpe."),
)  # fmt: skip
_INTERNLM2_RENAMES = (
    ("$output.", "lm_head."), ("$model.tok_embeddings.", "model.embed_tokens."),
    (".attention.", ".self_attn."), (".wo.", ".o_proj."),
)  # fmt: skip

_ALL: Iterable[Architecture] = (
    _LLAMA,
    replace(_LLAMA, name="MistralForCausalLM"),
    replace(_PLAIN, name="MixtralForCausalLM", mlp=_MIXTRAL_MLP, experts=True),
    replace(_MISTRAL_IMAGES, name="LlavaForConditionalGeneration"),
    replace(_MISTRAL_IMAGES, name="Mistral3ForConditionalGeneration"),
    replace(
        _PLAIN,
        name="YiForCausalLM",
        attention_norms=(("ln1", "input_layernorm"),),
        mlp_norms=(("ln2", "post_attention_layernorm"),),
    ),
    replace(_PLAIN, name="OrionForCausalLM"),
    replace(_LLAMA, name="Qwen2ForCausalLM"),
    replace(_LLAMA, name="Qwen3ForCausalLM", query_key_norm=True),
    # Upstream lists it as tensor-parallel, but its expert layers cannot be split.
    replace(
        _PLAIN,
        name="Qwen3MoeForCausalLM",
        mlp=_each("mlp.", "experts.*.gate_proj experts.*.up_proj experts.*.down_proj gate"),
        experts=True,
        query_key_norm=True,
    ),
    replace(_QWEN_IMAGES, name="Qwen2VLForConditionalGeneration"),
    replace(_QWEN_IMAGES, name="Qwen2_5_VLForConditionalGeneration"),
    replace(_GEMMA, name="GemmaForCausalLM"),
    replace(_GEMMA2, name="Gemma2ForCausalLM"),
    replace(
        _GEMMA2,
        name="Gemma3ForConditionalGeneration",
        prefix="language_model.",
        query_key_norm=True,
        rope_tables=2,
        sees_images=True,
        defaults={
            "vocab_size": 262208,
            "head_dim": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "rope_theta": 1e6,
        },
    ),
    replace(_GEMMA, name="Starcoder2ForCausalLM", mlp=_each("mlp.", "c_fc c_proj"), gated=False),
    replace(_GEMMA, name="GemmoeForCausalLM", mlp=_MIXTRAL_MLP, experts=True),
    replace(_COHERE, name="CohereForCausalLM"),
    replace(_COHERE, name="Cohere2ForCausalLM"),
    replace(
        _PLAIN,
        name="DbrxForCausalLM",
        renames=_DBRX_RENAMES,
        attention=_fused("Wqkv"),
        mlp=(
            ("block_sparse_moe.experts.*.w1", "block_sparse_moe.experts.w1"),
            ("block_sparse_moe.experts.*.v1", "block_sparse_moe.experts.v1"),
            ("block_sparse_moe.experts.*.w2", "block_sparse_moe.experts.w2"),
            ("block_sparse_moe.gate",),
        ),
        experts=True,
    ),
    replace(
        _PLAIN,
        name="Phi3ForCausalLM",
        attention=_fused("qkv_proj"),
        fused_mlp="mlp.gate_up_proj",
    ),
    replace(_GPT2, name="GPTBigCodeForCausalLM", renames=_BIGCODE_RENAMES, one_kv_head=True),
    replace(_GPT2, name="GPT2LMHeadModel", renames=_GPT2_RENAMES, inner_factor=4),
    replace(_PLAIN, name="MiniCPMForCausalLM"),
    replace(
        _PLAIN,
        name="InternLM2ForCausalLM",
        renames=_INTERNLM2_RENAMES,
        attention=_fused("wqkv"),
        mlp=_each("feed_forward.", "w1 w3 w2"),
        attention_norms=(("attention_norm",),),
        mlp_norms=(("ffn_norm",),),
    ),
    replace(_PLAIN, name="IndexForCausalLM"),
    replace(_PLAIN, name="GraniteForCausalLM"),
    replace(
        _LLAMA,
        name="Glm4ForCausalLM",
        fused_mlp="mlp.gate_up_proj",
        attention_norms=_each("", "input_layernorm post_self_attn_layernorm"),
        mlp_norms=_each("", "post_attention_layernorm post_mlp_layernorm"),
    ),
)

#: Every architecture that can be loaded, by its name in config.json.
ARCHITECTURES: Mapping[str, Architecture] = {one.name: one for one in _ALL}
