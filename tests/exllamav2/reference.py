"""A llama in float32, written from the formulas: what any engine must agree with."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

#: Logits of 16 bits are this close to those of 32.
CLOSE = 0.02


class Reference:
    """One model of `tiny_models`, with an adapter over it where one is given."""

    def __init__(self, folder: Path, lora: Path | None = None, scale: float = 1.0) -> None:
        said = json.loads((folder / "config.json").read_text())
        self._layers, self._heads = said["num_hidden_layers"], said["num_attention_heads"]
        self._kv_heads, self._size = said["num_key_value_heads"], said["head_dim"]
        self._base, self._epsilon = said["rope_theta"], said["rms_norm_eps"]
        weights = load_file(folder / "model.safetensors")
        self._weights = {name: tensor.float() for name, tensor in weights.items()}
        if lora is not None:
            self._add(lora, scale)

    def logits(self, tokens: Sequence[int]) -> Tensor:
        """Return the logits behind each of `tokens`: (tokens, vocabulary)."""
        x = self._weights["model.embed_tokens.weight"][torch.tensor(tokens)]
        for layer in range(self._layers):
            prefix = f"model.layers.{layer}."
            x = x + self._attention(self._norm(x, f"{prefix}input_layernorm"), prefix)
            x = x + self._mlp(self._norm(x, f"{prefix}post_attention_layernorm"), prefix)
        return self._norm(x, "model.norm") @ self._weights["lm_head.weight"].T

    def greedy(self, prompt: Sequence[int], count: int) -> list[int]:
        """Return the `count` likeliest tokens behind a prompt."""
        tokens = [*prompt]
        for _ in range(count):
            tokens.append(int(self.logits(tokens)[-1].argmax()))
        return tokens[len(prompt) :]

    def certain(self, count: int, seed: int = 1) -> tuple[tuple[int, ...], list[int]]:
        """Return a prompt and the likeliest `count` tokens behind it, none of them a close call.

        16 and 32 bits differ by less than `CLOSE`: with a smaller margin a comparison is luck.
        """
        vocabulary = len(self._weights["lm_head.weight"])
        source = torch.Generator().manual_seed(seed)
        for _ in range(500):
            drawn = torch.randint(3, vocabulary, (60,), generator=source)
            prompt = tuple(map(int, drawn))
            answer = self.greedy(prompt, count)
            if self.margin(prompt, answer) > CLOSE:
                return prompt, answer
        raise AssertionError("every prompt has a close call")

    def margin(self, prompt: Sequence[int], answer: Sequence[int]) -> float:
        """Return by how much the second likeliest token missed, where it was closest."""
        rows = self.logits([*prompt, *answer])[len(prompt) - 1 : -1]
        best = rows.topk(2, dim=-1).values
        return float((best[:, 0] - best[:, 1]).min())

    def _attention(self, x: Tensor, prefix: str) -> Tensor:
        count = len(x)

        def heads(name: str, number: int) -> Tensor:
            rows = x @ self._weights[f"{prefix}self_attn.{name}_proj.weight"].T
            return rows.view(count, number, self._size)

        groups = self._heads // self._kv_heads
        q = self._turned(heads("q", self._heads))
        k = self._turned(heads("k", self._kv_heads)).repeat_interleave(groups, dim=1)
        v = heads("v", self._kv_heads).repeat_interleave(groups, dim=1)
        scores = torch.einsum("qhd,khd->hqk", q, k) / self._size**0.5
        hidden = torch.ones(count, count).triu(1).bool()
        weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
        said = torch.einsum("hqk,khd->qhd", weights, v).reshape(count, -1)
        return said @ self._weights[f"{prefix}self_attn.o_proj.weight"].T

    def _mlp(self, x: Tensor, prefix: str) -> Tensor:
        gate, up, down = (
            self._weights[f"{prefix}mlp.{name}_proj.weight"] for name in ("gate", "up", "down")
        )
        return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T

    def _turned(self, x: Tensor) -> Tensor:
        speeds = 1.0 / self._base ** (torch.arange(0, self._size, 2).float() / self._size)
        angles = torch.outer(torch.arange(len(x)).float(), speeds)
        cos, sin = (torch.cat((one, one), -1)[:, None] for one in (angles.cos(), angles.sin()))
        left, right = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-right, left), -1) * sin

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self._epsilon)
        return x * scale * self._weights[f"{name}.weight"]

    def _add(self, lora: Path, weight: float) -> None:
        said: dict[str, Any] = json.loads((lora / "adapter_config.json").read_text())
        halves = load_file(lora / "adapter_model.safetensors")
        scale = weight * said["lora_alpha"] / said["r"]
        for name, down in halves.items():
            if ".lora_A." in name:
                up = halves[name.replace(".lora_A.", ".lora_B.")]
                target = name.removeprefix("base_model.model.").replace(".lora_A.", ".")
                self._weights[target] = self._weights[target] + scale * up.float() @ down.float()
