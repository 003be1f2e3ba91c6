"""Models of a few hundred kilobytes that the real exllamav2 loads: weights of a llama, and words.

`write_random` is a llama of two layers whose weights are chance. `write_scripted` says what it is
told to: its layers add nothing, and each token has one that follows it, so a text of pieces that
are all different is spoken word for word, whatever stands before its first piece.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTEXT = 2048
HEADS, KV_HEADS, HEAD_SIZE, HIDDEN, INNER, LAYERS = 4, 2, 32, 128, 256, 2
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BOS, EOS = 0, 2
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nFunctions: {{ tools | tojson }}. Say "
    '<tool_call>{"name": …, "arguments": …}</tool_call> to call one.<|im_end|>\n{% endif %}'
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CORPUS = (
    "the quick brown fox jumps over the lazy dog. hello world, once upon a time there was a tiny "
    "neuron. 0123456789 {} [] \"': \n"
)


def write_random(folder: Path, *, seed: int = 7) -> Path:
    """Write a model of random weights."""
    tokenizer = _tokenizer(())
    source = torch.Generator().manual_seed(seed)
    tensors = _tensors(tokenizer.get_vocab_size(), HIDDEN, LAYERS)
    for name, tensor in tensors.items():
        if not name.endswith("norm.weight"):
            tensor.copy_(torch.randn(tensor.shape, generator=source) * 0.08)
    _write(folder, tokenizer, tensors, HIDDEN, LAYERS)
    return folder


def write_scripted(folder: Path, pieces: Sequence[str], *, begin: str = "\n") -> Path:
    """Write a model that says `pieces` after `begin` and then stops.

    No piece may be said twice, nor be what the tokenizer makes of the prompt's end.
    """
    tokenizer = _tokenizer(pieces)
    size = tokenizer.get_vocab_size()
    hidden = -(-size // 32) * 32
    tensors = _tensors(size, hidden, 1)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name].zero_()
    for name, tensor in tensors.items():
        if "_proj" in name:
            tensor.zero_()
    tensors["model.embed_tokens.weight"][:, :size] = torch.eye(size)
    first = tokenizer.encode(begin, add_special_tokens=False).ids[-1]
    said = [first, *(tokenizer.token_to_id(piece) for piece in pieces), EOS]
    for before, after in pairwise(said):
        tensors["lm_head.weight"][after, before] = 1.0
    _write(folder, tokenizer, tensors, hidden, 1)
    return folder


def write_lora(folder: Path, model: Path, *, seed: int = 3) -> Path:
    """Write an adapter of random weights over all queries of `model`, strong enough to be seen."""
    folder.mkdir(parents=True)
    source = torch.Generator().manual_seed(seed)
    config = json.loads((model / "config.json").read_text())
    prefix = "base_model.model.model.layers"
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for half, shape in (("A", (4, HIDDEN)), ("B", (HEADS * HEAD_SIZE, 4))):
            name = f"{prefix}.{layer}.self_attn.q_proj.lora_{half}.weight"
            tensors[name] = torch.randn(shape, generator=source).half()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    return folder


def _tokenizer(pieces: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([_CORPUS] * 50, trainer)
    new = [piece for piece in pieces if tokenizer.token_to_id(piece) is None]
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in new])
    return tokenizer


def _tensors(vocabulary: int, hidden: int, layers: int) -> dict[str, Any]:
    tensors = {
        "model.embed_tokens.weight": torch.zeros(vocabulary, hidden),
        "model.norm.weight": torch.ones(hidden),
        "lm_head.weight": torch.zeros(vocabulary, hidden),
    }
    for layer in range(layers):
        for name, shape in (
            ("self_attn.q_proj", (HEADS * HEAD_SIZE, hidden)),
            ("self_attn.k_proj", (KV_HEADS * HEAD_SIZE, hidden)),
            ("self_attn.v_proj", (KV_HEADS * HEAD_SIZE, hidden)),
            ("self_attn.o_proj", (hidden, HEADS * HEAD_SIZE)),
            ("mlp.gate_proj", (INNER, hidden)),
            ("mlp.up_proj", (INNER, hidden)),
            ("mlp.down_proj", (hidden, INNER)),
        ):
            tensors[f"model.layers.{layer}.{name}.weight"] = torch.zeros(shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = torch.ones(hidden)
    return {name: tensor.half() for name, tensor in tensors.items()}


def _write(
    folder: Path, tokenizer: Tokenizer, tensors: dict[str, Any], hidden: int, layers: int
) -> None:
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_SIZE,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    }
    words = {
        "bos_token": SPECIAL[BOS],
        "eos_token": SPECIAL[EOS],
        "add_bos_token": False,
        "chat_template": TEMPLATE,
    }
    for name, said in (
        ("config.json", config),
        ("generation_config.json", {"eos_token_id": [BOS, EOS], "bos_token_id": BOS}),
        ("tokenizer_config.json", words),
    ):
        (folder / name).write_text(json.dumps(said))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
