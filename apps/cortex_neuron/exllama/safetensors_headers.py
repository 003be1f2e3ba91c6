"""Take the header of a safetensors file apart. Pure: bytes in, values out.

Layout: eight bytes (little-endian) that say how long the header is, the header (JSON: a name to a
dtype, a shape and a place), then the data. The format wants every byte of the data named once:
what overlaps, what lies outside and what leaves a hole is Malformed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

PREFIX_BYTES = 8

#: The format's own limit.
MAX_HEADER_BYTES = 100_000_000

_MAX_DIMENSIONS = 16
_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class Malformed(Exception):
    """The header contradicts itself or the file's size."""


class Truncated(Malformed):
    """The file ends before its tensors do."""

    def __init__(self, expected_bytes: int, actual_bytes: int) -> None:
        super().__init__(f"{expected_bytes} bytes were expected and {actual_bytes} are there")
        self.expected_bytes, self.actual_bytes = expected_bytes, actual_bytes


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor's description. `begin` and `end` count from the start of the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def bytes(self) -> int:
        """Bytes in the file."""
        return self.end - self.begin

    @property
    def elements(self) -> int:
        """Numbers in the tensor."""
        return math.prod(self.shape)


def header_length(prefix: bytes, file_bytes: int) -> int:
    """Return how long the header behind `prefix` is. Raises Malformed or Truncated."""
    if len(prefix) != PREFIX_BYTES:
        raise Truncated(PREFIX_BYTES, file_bytes)
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER_BYTES:
        raise Malformed(f"it claims a header of {length} bytes")
    if length > file_bytes - PREFIX_BYTES:
        raise Truncated(PREFIX_BYTES + length, file_bytes)
    return length


def parse_header(header: bytes, data_bytes: int) -> Mapping[str, Tensor]:
    """Return the tensors of a file whose header is followed by `data_bytes` bytes.

    Raises Malformed, or Truncated when the data ends before the tensors do.
    """
    try:
        said = orjson.loads(header)
    except orjson.JSONDecodeError as error:
        raise Malformed("its header is no JSON") from error
    if not isinstance(said, dict):
        raise Malformed("its header is no JSON object")
    tensors = {name: _tensor(name, one) for name, one in said.items() if name != "__metadata__"}
    before, last = 0, "its header"
    for name, tensor in sorted(tensors.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if tensor.begin < before:
            raise Malformed(f"{name!r} overlaps {last!r}")
        if tensor.begin > before:
            raise Malformed(f"{tensor.begin - before} bytes before {name!r} belong to no tensor")
        before, last = tensor.end, name
    if before > data_bytes:
        there = PREFIX_BYTES + len(header)
        raise Truncated(there + before, there + data_bytes)
    if before < data_bytes:
        raise Malformed(f"{data_bytes - before} bytes at its end belong to no tensor")
    return tensors


def _tensor(name: str, said: Any) -> Tensor:
    if not isinstance(said, dict):
        raise Malformed(f"{name!r} is not described")
    dtype = said.get("dtype")
    shape, place = _sizes(said.get("shape")), _sizes(said.get("data_offsets"))
    if not isinstance(dtype, str) or shape is None or place is None:
        raise Malformed(f"{name!r} has no dtype, shape and data_offsets")
    if len(place) != 2 or place[0] > place[1] or len(shape) > _MAX_DIMENSIONS:  # noqa: PLR2004
        raise Malformed(f"{name!r} has an impossible shape or place")
    tensor = Tensor(dtype, shape, place[0], place[1])
    bits = _BITS.get(dtype)
    if bits is not None and tensor.bytes != -(-tensor.elements * bits // 8):
        raise Malformed(
            f"{name!r} is {tensor.bytes} bytes long and should be "
            f"{-(-tensor.elements * bits // 8)} as {dtype} of the shape {list(tensor.shape)}"
        )
    return tensor


def _sizes(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, list) and all(type(one) is int and one >= 0 for one in value):
        return tuple(value)
    return None
