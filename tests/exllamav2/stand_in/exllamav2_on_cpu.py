"""What exllamav2's compiled extension does for a plain FP16 llama, in torch on the CPU.

`exllamav2_ext` (see extension.c) is this module under the extension's name. Quantised weights,
quantised caches and split tensors have no stand-in: whatever needs them says so. While there is a
file at `STAND_IN_FAULT`, every forward pass fails with what it says.
"""

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

_FAULT = os.environ.get("STAND_IN_FAULT")


def rms_norm(x: Tensor, weight: Tensor, out: Tensor, epsilon: float) -> None:
    """Normalise rows."""
    if _FAULT is not None and Path(_FAULT).exists():
        raise RuntimeError(Path(_FAULT).read_text())
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    out.copy_(wide * scale * weight.float())


def rope_(
    x: Tensor,
    sin: Tensor,
    cos: Tensor,
    past: int,
    heads: int,
    size: int,
    offsets: Tensor,
    neox: bool,
) -> None:
    """Turn queries or keys to their positions, in place."""
    rows = x.view(x.shape[0], -1, heads, size)
    batch, length = rows.shape[:2]
    first = torch.full((batch,), past) if offsets.is_meta else offsets.reshape(-1).long() + past
    at = (first[:, None] + torch.arange(length)).clamp(max=sin.shape[2] - 1)
    s, c = (table[0, 0][at][:, :, None].float() for table in (sin, cos))
    wide = rows.float()
    if neox:
        left, right = wide.chunk(2, dim=-1)
        turned = torch.cat((-right, left), dim=-1)
    else:
        turned = torch.stack((-wide[..., 1::2], wide[..., ::2]), dim=-1).flatten(-2)
    rows.copy_(wide * c + turned * s)


def stloader_read(path: str, offset: int, size: int, target: Tensor) -> None:
    """Read part of a file into a tensor."""
    with Path(path).open("rb") as file:
        file.seek(offset)
        raw = bytearray(file.read(size))
    if len(raw) != size:
        raise RuntimeError(f"{path} is shorter than its header says")
    if size:
        target.view(-1).view(torch.uint8).copy_(torch.frombuffer(raw, dtype=torch.uint8))


def cache_rotate(cache: Tensor, order: Tensor, spare: Tensor) -> None:
    """Move pages: each place of `order` takes from the next, the last from the first."""
    places = order.tolist()
    spare.view(-1).copy_(cache[places[0]].reshape(-1))
    for to, source in pairwise(places):
        cache[to].copy_(cache[source].clone())
    cache[places[-1]].copy_(spare.view(cache[places[-1]].shape))


def count_match(a: Tensor, b: Tensor, most: int) -> int:
    """Return how many tokens two rows begin with alike."""
    length = min(most, a.shape[1], b.shape[1])
    differs = (a[0, :length] != b[0, :length]).nonzero()
    return int(differs[0]) if differs.numel() else length


def partial_strings_match(text: Any, offsets: Any, strings: Any) -> int:
    """Return where one of the strings is in the text, -2 where its end may become one, else -1."""
    said = np.asarray(text).tobytes().decode("utf-32-le")
    raw = np.asarray(strings).tobytes()
    bounds = np.asarray(offsets).view(np.int32).tolist()
    for start, end in pairwise(bounds):
        wanted = raw[start:end].decode("utf-32-le")
        for at in range(len(said)):
            part = said[at : at + len(wanted)]
            if part == wanted:
                return at
            if at + len(part) == len(said) and wanted.startswith(part):
                return -2
    return -1


def fast_fill_cpu_ones_bool(target: Tensor) -> None:
    """Set everything."""
    target.fill_(True)


def fast_fadd_cpu(target: Tensor, other: Tensor) -> None:
    """Add to each row."""
    target.view(-1, target.shape[-1]).add_(other)


def fast_copy_cpu(target: Tensor, source: Tensor) -> None:
    """Copy."""
    target.copy_(source)


def logit_filter_exclusive(allowed: Tensor, lists: list[list[int]]) -> None:
    """Leave each row only the tokens of its list."""
    for at, tokens in enumerate(lists):
        kept = torch.zeros_like(allowed[at])
        kept[list(tokens)] = True
        allowed[at] &= kept


def apply_rep_penalty(
    sequence: Tensor,
    penalty: float,
    sustain: int,
    decay: int,
    frequency: float,
    presence: float,
    logits: Tensor,
) -> None:
    """Make tokens that were there less likely, in place. Fading out by `decay` is left out."""
    for row, scores in zip(sequence, logits, strict=True):
        flat = scores.view(-1)
        seen = row if sustain < 0 else row[max(0, len(row) - sustain) :]
        tokens, counts = seen.unique(return_counts=True)
        if tokens.numel():
            old = flat[tokens]
            old = torch.where(old > 0, old / penalty, old * penalty)
            flat[tokens] = old - presence - frequency * counts


def sample_basic(  # noqa: PLR0917  # the extension's own signature
    logits: Tensor,
    temperature: float,
    top_k: int,
    top_p: float,
    top_a: float,
    min_p: float,
    tfs: float,
    typical: float,
    random: float,
    out_tokens: Tensor,
    out_probs: Tensor,
    out_top_probs: Tensor,
    out_top_tokens: Tensor,
    allowed: Tensor,
    mirostat: bool,
    mirostat_mu: list[float],
    mirostat_tau: float,
    mirostat_eta: float,
    post_temperature: float,
    xtc_mask: Tensor,
    xtc_probability: float,
    xtc_threshold: float,
    min_temp: float,
    max_temp: float,
    temp_exponent: float,
    smoothing_factor: float,
    skew: float,
) -> list[float]:
    """Draw a token: temperature, top-k, top-p, min-p. The rarer ways of cutting are left out."""
    if temperature < 0.01:
        temperature, top_k = 1.0, 1
    for at in range(logits.shape[0]):
        scores = logits[at].view(-1).float() / temperature
        if not allowed.is_meta:
            scores = scores.masked_fill(~allowed[at], float("-inf"))
        probs, order = scores.softmax(-1).sort(descending=True, stable=True)
        keep = torch.ones_like(probs, dtype=torch.bool)
        if 0 < top_k < len(probs):
            keep[top_k:] = False
        if 0 < top_p < 1:
            keep &= (probs * keep / (probs * keep).sum()).cumsum(0) <= top_p
        if 0 < min_p < 1:
            keep &= probs >= probs[0] * min_p
        keep[0] = True
        probs, order = probs[keep] / probs[keep].sum(), order[keep]
        drawn = min(int((probs.cumsum(0) <= random).sum()), len(probs) - 1)
        out_tokens[at, 0], out_probs[at, 0] = order[drawn], probs[drawn]
    return mirostat_mu


def __getattr__(name: str) -> Callable[..., Any]:
    """Have everything else say that it is not here."""
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(f"exllamav2_ext.{name} needs a GPU")

    return missing
