"""A map that is never changed: setting a key makes a new map which shares all the rest.

A trie of 32-way branches over the key's hash, with small dicts as leaves, so a change copies a few
dozen pointers whether the map holds ten entries or ten thousand. Iteration follows the hashes:
whoever needs an order sorts.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast, overload

_BITS = 5
_FAN = 1 << _BITS
_MASK = _FAN - 1
_LEAF_SIZE = 16
#: Beyond this depth every bit of a hash has been used, and keys that still collide share a leaf.
_MAX_DEPTH = 12

_K = TypeVar("_K")
_V = TypeVar("_V")
_D = TypeVar("_D")
_EMPTY: dict[Any, Any] = {}
_MISSING: Any = object()


class PersistentMap(Generic[_K, _V]):
    """An immutable mapping with cheap successors."""

    __slots__ = ("_root", "_size")

    def __init__(self, entries: Mapping[_K, _V] | None = None) -> None:
        self._root: Any = _EMPTY
        self._size = 0
        for key, value in (entries or {}).items():
            self._root, more = _with(self._root, key, value)
            self._size += more

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: object) -> bool:
        return self.get(cast("_K", key), _MISSING) is not _MISSING

    def __getitem__(self, key: _K) -> _V:
        found: _V = self.get(key, _MISSING)
        if found is _MISSING:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[_K]:
        for leaf in _leaves(self._root):
            yield from leaf

    @overload
    def get(self, key: _K) -> _V | None: ...
    @overload
    def get(self, key: _K, default: _D) -> _V | _D: ...
    def get(self, key: _K, default: Any = None) -> Any:
        """Return the value of `key`, else `default`."""
        part, bits = self._root, hash(key)
        while part.__class__ is tuple:
            part = part[bits & _MASK]
            bits >>= _BITS
        return part.get(key, default)

    def values(self) -> Iterator[_V]:
        """Return every value."""
        for leaf in _leaves(self._root):
            yield from leaf.values()

    def items(self) -> Iterator[tuple[_K, _V]]:
        """Return every key with its value."""
        for leaf in _leaves(self._root):
            yield from leaf.items()

    def set(self, key: _K, value: _V) -> "PersistentMap[_K, _V]":
        """Return this map with `key` set."""
        root, more = _with(self._root, key, value)
        return _made(root, self._size + more)

    def without(self, key: _K) -> "PersistentMap[_K, _V]":
        """Return this map without `key`."""
        if key not in self:
            return self
        return _made(_without(self._root, hash(key), key), self._size - 1)


def _made(root: Any, size: int) -> PersistentMap[Any, Any]:
    made: PersistentMap[Any, Any] = PersistentMap.__new__(PersistentMap)
    made._root, made._size = root, size  # noqa: SLF001  # its own kind
    return made


def _with(root: Any, key: Any, value: Any) -> tuple[Any, bool]:
    """Return the trie with `key` set, and whether it is new there."""
    above: list[tuple[Any, ...]] = []
    part, bits = root, hash(key)
    while part.__class__ is tuple:
        above.append(part)
        part = part[bits & _MASK]
        bits >>= _BITS
    made, bits = _leaf_with(part, len(above), key, value), hash(key)
    for depth in range(len(above) - 1, -1, -1):
        branch = list(above[depth])
        branch[(bits >> (_BITS * depth)) & _MASK] = made
        made = tuple(branch)
    return made, key not in part


def _leaf_with(part: dict[Any, Any], depth: int, key: Any, value: Any) -> Any:
    leaf = part.copy()
    leaf[key] = value
    if len(leaf) <= _LEAF_SIZE or depth == _MAX_DEPTH:
        return leaf
    children: list[dict[Any, Any]] = [{} for _ in range(_FAN)]
    for one, held in leaf.items():
        children[(hash(one) >> (_BITS * depth)) & _MASK][one] = held
    return tuple(children)


def _without(part: Any, bits: int, key: Any) -> Any:
    if part.__class__ is tuple:
        at = bits & _MASK
        return (*part[:at], _without(part[at], bits >> _BITS, key), *part[at + 1 :])
    return {one: value for one, value in part.items() if one != key}


def _leaves(part: Any) -> Iterator[dict[Any, Any]]:
    if part.__class__ is tuple:
        for child in part:
            yield from _leaves(child)
    else:
        yield part
