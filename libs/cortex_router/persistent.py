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
_MISSING: Any = object()
_new = object.__new__


class PersistentMap(Generic[_K, _V]):
    """An immutable mapping with cheap successors."""

    __slots__ = ("_root", "_size")

    def __init__(self, entries: Mapping[_K, _V] | None = None) -> None:
        self._root: Any = {}
        self._size = 0
        if entries:
            filled = PersistentMap[_K, _V]()
            for key, value in entries.items():
                filled = filled.set(key, value)
            self._root, self._size = filled._root, filled._size  # noqa: SLF001  # its own kind

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
        # On the path of every event, so without calls.
        root = self._root
        if root.__class__ is dict and (len(root) < _LEAF_SIZE or key in root):
            leaf = root.copy()
            leaf[key] = value
            small: PersistentMap[_K, _V] = _new(PersistentMap)
            small._root, small._size = leaf, len(leaf)  # its own kind
            return small
        above: list[tuple[tuple[Any, ...], int]] = []
        part, bits = root, hash(key)
        while part.__class__ is tuple:
            at = bits & _MASK
            above.append((part, at))
            part = part[at]
            bits >>= _BITS
        made = part.copy()
        made[key] = value
        size = len(made)
        grown = size - len(part)
        if size > _LEAF_SIZE and len(above) < _MAX_DEPTH:
            made = _split(made, len(above))
        for branch, at in reversed(above):
            copy = list(branch)
            copy[at] = made
            made = tuple(copy)
        return _made(made, self._size + grown)

    def without(self, key: _K) -> "PersistentMap[_K, _V]":
        """Return this map without `key`."""
        if key not in self:
            return self
        return _made(_without(self._root, hash(key), key), self._size - 1)


def _made(root: Any, size: int) -> PersistentMap[Any, Any]:
    made: PersistentMap[Any, Any] = _new(PersistentMap)
    made._root, made._size = root, size  # noqa: SLF001  # its own kind
    return made


def _split(leaf: dict[Any, Any], depth: int) -> tuple[dict[Any, Any], ...]:
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
