"""What one token costs in a cache, by how it is stored. Pure.

Quantised caches keep keys and values in so many bits, and a 16-bit scale for each 32 of them; they
are unpacked one layer at a time into a staging buffer of 16-bit numbers, one on each device.
"""

from collections.abc import Mapping

#: Numbers that share a byte, of keys and of values; FP16 has none of this.
_PER_BYTE: Mapping[str, tuple[int, int]] = {"Q8": (1, 1), "Q6": (1, 2), "Q4": (2, 2)}

_SCALED_TOGETHER = 32

#: Every way to store a cache, from the largest to the smallest.
CACHE_MODES = ("FP16", "Q8", "Q6", "Q4")


def cache_bytes(mode: str, tokens: int, heads: int, head_dim: int) -> int:
    """Return the bytes of one layer's cache for `tokens`."""
    if mode == "FP16":
        return tokens * heads * head_dim * 4
    keys, values = _PER_BYTE[mode]
    scales = head_dim // _SCALED_TOGETHER * 2
    return tokens * heads * (head_dim // keys + head_dim // values + 2 * scales)


def staging_bytes(mode: str, tokens: int, heads: int, head_dim: int) -> int:
    """Return the bytes of the buffer into which one layer is unpacked."""
    return 0 if mode == "FP16" else tokens * heads * head_dim * 4
