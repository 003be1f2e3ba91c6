"""Take a GGUF header apart: keys and values, then the tensors' places. Bounded by the file's size.

Layout (little-endian): magic, version, tensor count, value count; the values; the tensors' names,
shapes, types and offsets; padding; the data.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

_MAX_VALUES = 1 << 16
_MAX_TENSORS = 1 << 20
_MAX_STRING = 1 << 24
_MAX_DIMENSIONS = 4
_KEPT_ARRAY = 4096
_VERSIONS = (2, 3)
_MAX_ALIGNMENT = 1 << 16

_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"}
_SCALARS |= {10: "<Q", 11: "<q", 12: "<d"}
_INTEGERS = frozenset({0, 1, 2, 3, 4, 5, 10, 11})

# Tensor type: elements in a block, bytes of a block.
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    9: (32, 36), 10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
    15: (256, 292), 16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18),
    21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),
    28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip


class Malformed(Exception):
    """The header contradicts itself or the file's size."""


class Unsupported(Exception):
    """This is no GGUF file, or not of an age that is understood."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An array that was stepped over."""

    count: int


Value: TypeAlias = str | int | float | bool | tuple[int, ...] | Skipped


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the data. `end` is where the last known tensor ends."""

    values: Mapping[str, Value]
    data_start: int
    end: int


class _Cursor:
    """A place in the file that never goes past its end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self.at = file, size, 0

    def take(self, count: int) -> bytes:
        self._claim(count)
        data = self._file.read(count)
        if len(data) != count:
            raise Malformed("it ends inside its header")
        return data

    def skip(self, count: int) -> None:
        self._claim(count)
        self._file.seek(count, 1)

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def text(self) -> str:
        length = self.number("<Q")
        if length > _MAX_STRING:
            raise Malformed(f"a text of {length} bytes in its header")
        return self.take(length).decode("utf-8", errors="replace")

    def _claim(self, count: int) -> None:
        if count > self._size - self.at:
            raise Malformed("it ends inside its header")
        self.at += count


def read_header(file: BinaryIO, size: int) -> Header:
    """Return the header of `file`, which is `size` bytes long. Raises Malformed or Unsupported."""
    cursor = _Cursor(file, size)
    if size < len(b"GGUF") or cursor.take(4) != b"GGUF":
        raise Unsupported("is not a GGUF file")
    version = cursor.number("<I")
    if version not in _VERSIONS:
        big = struct.unpack(">I", struct.pack("<I", version))[0] in _VERSIONS
        age = "big-endian" if big else f"version {version}"
        raise Unsupported(f"is a GGUF file of an unsupported kind ({age})")
    tensors, count = cursor.number("<Q"), cursor.number("<Q")
    if count > _MAX_VALUES or tensors > _MAX_TENSORS:
        raise Malformed(f"it claims {count} values and {tensors} tensors")
    values = {cursor.text(): _value(cursor, cursor.number("<I")) for _ in range(count)}
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= _MAX_ALIGNMENT:
        raise Malformed(f"an alignment of {alignment}")
    reach = max((_tensor_end(cursor) for _ in range(tensors)), default=0)
    start = -(-cursor.at // alignment) * alignment
    return Header(values=values, data_start=start, end=start + reach if tensors else cursor.at)


def _value(cursor: _Cursor, kind: int) -> Value:
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _array(cursor)
    return _scalar(cursor, kind)


def _scalar(cursor: _Cursor, kind: int) -> int | float | bool:
    form = _SCALARS.get(kind)
    if form is None:
        raise Malformed(f"a value of the unknown kind {kind}")
    value: int | float | bool = struct.unpack(form, cursor.take(struct.calcsize(form)))[0]
    return value


def _array(cursor: _Cursor) -> Value:
    kind, count = cursor.number("<I"), cursor.number("<Q")
    if kind == _STRING:
        for _ in range(count):
            cursor.skip(cursor.number("<Q"))
        return Skipped(count)
    if kind not in _SCALARS:
        raise Malformed(f"an array of the unsupported kind {kind}")
    if kind in _INTEGERS and count <= _KEPT_ARRAY:
        return tuple(int(_scalar(cursor, kind)) for _ in range(count))
    cursor.skip(count * struct.calcsize(_SCALARS[kind]))
    return Skipped(count)


def _tensor_end(cursor: _Cursor) -> int:
    """Return where one tensor ends, counted from the start of the data.

    A type that is not known here may be newer than this table: its size is then left out.
    """
    cursor.text()
    dimensions = cursor.number("<I")
    if dimensions > _MAX_DIMENSIONS:
        raise Malformed(f"a tensor of {dimensions} dimensions")
    elements = math.prod(cursor.number("<Q") for _ in range(dimensions))
    kind, offset = cursor.number("<I"), cursor.number("<Q")
    block, size = _BLOCKS.get(kind, (1, 0))
    return offset + -(-elements // block) * size
