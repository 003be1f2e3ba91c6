"""flash-attn's three functions in plain torch: pages, causality, grouped heads."""

from typing import Any

import torch
from torch import Tensor

__version__ = "2.8.3"


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    **_: Any,
) -> Tensor:
    """Attend. Shapes are (batch, tokens, heads, size); the last query sees the last key."""
    groups = q.shape[2] // k.shape[2]
    keys, values = (one.repeat_interleave(groups, dim=2).float() for one in (k, v))
    scale = softmax_scale or q.shape[-1] ** -0.5
    scores = torch.einsum("bqhd,bkhd->bhqk", q.float(), keys) * scale
    if causal:
        queries, seen = q.shape[1], k.shape[1]
        hidden = torch.arange(seen) > torch.arange(queries)[:, None] + seen - queries
        scores = scores.masked_fill(hidden, float("-inf"))
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), values).to(q.dtype)


def flash_attn_varlen_func(*_: Any, **__: Any) -> Tensor:
    """Not used by a llama."""
    raise NotImplementedError


def flash_attn_with_kvcache(  # noqa: PLR0917  # flash-attn's own signature
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    k: Tensor | None = None,
    v: Tensor | None = None,
    cache_seqlens: Tensor | None = None,
    block_table: Tensor | None = None,
    causal: bool = False,
    softmax_scale: float | None = None,
    **_: Any,
) -> Tensor:
    """Write new keys and values into their pages, then attend to all that is there."""
    assert cache_seqlens is not None
    assert block_table is not None
    page = k_cache.shape[1]
    rows = []
    for at in range(q.shape[0]):
        length = int(cache_seqlens[at])
        if k is not None and v is not None:
            for number in range(k.shape[1]):
                place = int(block_table[at, length // page]), length % page
                k_cache[place], v_cache[place] = k[at, number], v[at, number]
                length += 1
        pages = block_table[at, : -(-length // page)].long()
        keys, values = (one[pages].flatten(0, 1)[None, :length] for one in (k_cache, v_cache))
        rows.append(
            flash_attn_func(
                q[at : at + 1], keys, values, softmax_scale=softmax_scale, causal=causal
            )
        )
    return torch.cat(rows)
