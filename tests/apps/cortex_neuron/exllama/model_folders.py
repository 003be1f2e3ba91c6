"""Write model folders of any size: real headers, and data that takes no room on the disk."""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortex_neuron.exllama.architectures import ARCHITECTURES

BYTES = {"F16": 2, "BF16": 2, "F32": 4, "I32": 4, "I16": 2, "F8_E4M3": 1}
GROUP = 32

Tensors = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model to write. `stored` is fp16, exl2 or gptq; `biased` names end in these words."""

    architecture: str = "LlamaForCausalLM"
    layers: int = 2
    hidden: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    intermediate: int = 256
    vocabulary: int = 512
    experts: int = 0
    context: int = 8192
    stored: str = "fp16"
    bits: int = 4
    dtype: str = "F16"
    tied: bool = False
    own_head: bool = True
    norm_biased: bool = False
    biased: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        """What config.json says of it."""
        said: dict[str, Any] = {
            "architectures": [self.architecture],
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "rms_norm_eps": 1e-5,
            "layer_norm_eps": 1e-5,
            "layer_norm_epsilon": 1e-5,
            "rope_theta": 10000.0,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "tie_word_embeddings": self.tied,
        }
        if self.experts:
            said |= {"num_local_experts": self.experts, "num_experts_per_tok": 2}
        if self.stored == "exl2":
            said["quantization_config"] = {"quant_method": "exl2", "bits": float(self.bits)}
        if self.stored == "gptq":
            said["quantization_config"] = {"quant_method": "gptq", "bits": 4, "desc_act": True}
        return said | dict(self.extra)

    @property
    def tensors(self) -> Tensors:
        """Every tensor, by its name in the file."""
        shape = ARCHITECTURES[self.architecture]
        top, wide = f"{shape.prefix}model.", self.heads * self.head_dim
        narrow = self.kv_heads * self.head_dim
        found: Tensors = {f"{top}embed_tokens.weight": (self.dtype, (self.vocabulary, self.hidden))}
        if shape.positions:
            found[f"{shape.positions}.weight"] = (self.dtype, (self.context, self.hidden))
        for layer in range(self.layers):
            at = f"{top}layers.{layer}."
            for names in (*shape.attention_norms, *shape.mlp_norms):
                found |= self._norm(at + names[0], self.hidden)
            if shape.query_key_norm:
                for which in ("q", "k"):
                    found |= self._norm(f"{at}self_attn.{which}_norm", self.head_dim)
            rows: dict[str, tuple[int, int]] = {}
            sizes = ((self.hidden, wide), (self.hidden, narrow), (self.hidden, narrow))
            for names, (inputs, outputs) in zip(
                shape.attention, (*sizes, (wide, self.hidden)), strict=True
            ):
                name = names[-1] if self.stored != "fp16" else names[0]
                rows[name] = (inputs, outputs + rows.get(name, (0, 0))[1])
            rows |= self._mlp()
            for name, (inputs, outputs) in rows.items():
                found |= self._matrix(at + name, inputs, outputs)
        found |= self._norm(f"{top}norm", self.hidden)
        if self.own_head:
            found |= self._matrix(f"{shape.prefix}lm_head", self.hidden, self.vocabulary)
        return {self._file_name(name): tensor for name, tensor in found.items()}

    def _mlp(self) -> dict[str, tuple[int, int]]:
        shape = ARCHITECTURES[self.architecture]
        inner, hidden = self.intermediate, self.hidden
        if not self.experts:
            if shape.fused_mlp and self.stored == "fp16":
                return {shape.fused_mlp: (hidden, 2 * inner), "mlp.down_proj": (inner, hidden)}
            *inward, outward = (names[0] for names in shape.mlp)
            return dict.fromkeys(inward, (hidden, inner)) | {outward: (inner, hidden)}
        gate, up, down, router = (names[0] for names in shape.mlp)
        found = {router: (hidden, self.experts)}
        for expert in range(self.experts):
            for name, size in (
                (gate, (hidden, inner)),
                (up, (hidden, inner)),
                (down, (inner, hidden)),
            ):
                found[name.replace("*", str(expert))] = size
        return found

    def _norm(self, name: str, size: int) -> Tensors:
        found: Tensors = {f"{name}.weight": (self.dtype, (size,))}
        return found | ({f"{name}.bias": (self.dtype, (size,))} if self.norm_biased else {})

    def _matrix(self, name: str, inputs: int, outputs: int) -> Tensors:
        bias: Tensors = {}
        if name.endswith(self.biased) and self.biased:
            bias = {f"{name}.bias": (self.dtype, (outputs,))}
        groups = inputs // GROUP
        if self.stored == "exl2" and not name.endswith((".gate", "mlp.gate")):
            padded = -(-outputs // 32) * 32
            return {
                f"{name}.q_weight": ("I32", (inputs * self.bits // 32, padded)),
                f"{name}.q_invperm": ("I32", (inputs,)),
                f"{name}.q_scale": ("I32", (groups, padded // 8)),
                f"{name}.q_scale_max": ("F16", (groups,)),
                f"{name}.q_groups": ("I16", (groups * 2,)),
            } | bias
        if self.stored == "gptq" and not name.endswith(("lm_head", ".gate")):
            return {
                f"{name}.qweight": ("I32", (inputs // 8, outputs)),
                f"{name}.qzeros": ("I32", (groups, outputs // 8)),
                f"{name}.scales": ("F16", (groups, outputs)),
                f"{name}.g_idx": ("I32", (inputs,)),
            } | bias
        turned = self.architecture == "GPT2LMHeadModel"
        return {
            f"{name}.weight": (self.dtype, (inputs, outputs) if turned else (outputs, inputs))
        } | bias

    def _file_name(self, name: str) -> str:
        for old, new in ARCHITECTURES[self.architecture].renames:
            name = name.replace(new, old.removeprefix("$"))
        return name


def header_of(tensors: Tensors) -> tuple[bytes, int]:
    """Return a file's prefix and header, and how many bytes of data belong behind it."""
    said: dict[str, Any] = {}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * BYTES[dtype]
        said[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(said).encode()
    return len(header).to_bytes(8, "little") + header, at


def write_tensors(path: Path, tensors: Tensors, bits: int = 4) -> None:
    """Write a safetensors file whose data is zero, except for what says how rows are grouped."""
    header, size = header_of(tensors)
    with path.open("wb") as file:
        file.write(header)
        at = len(header)
        for name, (dtype, shape) in tensors.items():
            if name.endswith(".q_groups"):
                file.seek(at)
                rows = (group * GROUP * bits // 32 for group in range(shape[0] // 2))
                pairs = [number for row in rows for number in (bits, row)]
                file.write(struct.pack(f"<{shape[0]}H", *pairs))
            if name.endswith(".g_idx"):
                file.seek(at)
                file.writelines((row // GROUP).to_bytes(4, "little") for row in range(shape[0]))
            at += math.prod(shape) * BYTES[dtype]
        file.truncate(len(header) + size)


def write_model(folder: Path, model: Model, *, shards: int = 1, template: bool = True) -> Path:
    """Write the folder of a model, its weights in so many files, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config))
    (folder / "tokenizer.json").write_text("{}")
    said = {"chat_template": "{{ messages }}"} if template else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    tensors = model.tensors
    if shards == 1:
        write_tensors(folder / "model.safetensors", tensors, model.bits)
        return folder
    index: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in list(tensors)[shard::shards]}
        write_tensors(folder / file, part, model.bits)
        index |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder
