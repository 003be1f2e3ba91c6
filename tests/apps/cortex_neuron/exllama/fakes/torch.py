"""As much of torch as the adapter uses, on numpy: the fast suite has no torch."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

long, bool, float32, int32 = np.int64, np.bool_, np.float32, np.int32  # noqa: A001  # torch's own names


class Best(NamedTuple):
    """What `topk` gives."""

    values: Any
    indices: Any


class Tensor(np.ndarray):
    """An array with torch's methods."""

    def __int__(self) -> int:
        return int(self.item())

    def float(self) -> "Tensor":
        """Return it in 32 bits."""
        return tensor(self, dtype=np.float32)

    def log_softmax(self, dim: int) -> "Tensor":
        """Return log probabilities."""
        highest = self.max(axis=dim, keepdims=True)
        return tensor(self - highest - np.log(np.exp(self - highest).sum(axis=dim, keepdims=True)))

    def gather(self, dim: int, index: Any) -> "Tensor":
        """Return the elements at `index`."""
        return tensor(np.take_along_axis(np.asarray(self), np.asarray(index), axis=dim))

    def topk(self, k: int, dim: int) -> Best:
        """Return the greatest."""
        order = np.argsort(-np.asarray(self), axis=dim, kind="stable")[..., :k]
        return Best(tensor(np.take_along_axis(np.asarray(self), order, axis=dim)), tensor(order))

    def masked_fill(self, mask: Any, value: Any) -> "Tensor":
        """Return it with `value` where `mask` is."""
        return tensor(np.where(np.asarray(mask), value, np.asarray(self)))


def tensor(values: Any, dtype: Any = None) -> Tensor:
    """Return a tensor."""
    return np.array(values, dtype=dtype).view(Tensor)


def zeros(shape: Any, dtype: Any = np.float32) -> Tensor:
    """Return zeros."""
    return np.zeros(shape, dtype=dtype).view(Tensor)


def from_numpy(values: Any) -> Tensor:
    """Return an array as a tensor."""
    return tensor(values)


def frombuffer(raw: bytearray, dtype: Any) -> Tensor:
    """Return bytes as numbers."""
    return tensor(np.frombuffer(raw, dtype=dtype))


def cat(parts: Any) -> Tensor:
    """Join tensors."""
    return tensor(np.concatenate([np.asarray(one) for one in parts]))


cuda = SimpleNamespace(
    device_count=lambda: 1,
    get_device_properties=lambda _index: SimpleNamespace(major=8, minor=6),
    is_available=lambda: False,
    mem_get_info=lambda _index: (8 << 30, 24 << 30),
)
