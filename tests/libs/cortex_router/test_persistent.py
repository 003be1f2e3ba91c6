"""A map with cheap successors behaves like a dict, and its older selves stay what they were."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_router import PersistentMap


@dataclass(frozen=True)
class Key:
    """A key whose hash is chosen: equal hashes, equal low bits, negative ones."""

    name: int
    bits: int

    def __hash__(self) -> int:
        return self.bits


keys = st.builds(
    Key,
    st.integers(0, 40),
    st.sampled_from([0, 0, 1, 33, -1, 2**60, -(2**61) + 3, 7 << 55, 32, 1 << 32]),
)
changes = st.lists(st.tuples(st.sampled_from(["set", "set", "set", "without"]), keys), max_size=80)


@given(changes)
def test_it_is_a_dict_that_leaves_its_past_alone(history: list[tuple[str, Key]]) -> None:
    """Every step equals a dict's, and every earlier map still equals its own dict."""
    past = [(PersistentMap[Key, int](), dict[Key, int]())]
    for at, (change, key) in enumerate(history):
        found, mirror = past[-1]
        if change == "set":
            past.append((found.set(key, at), {**mirror, key: at}))
        else:
            rest = {one: value for one, value in mirror.items() if one != key}
            past.append((found.without(key), rest))

    for found, mirror in past:
        assert dict(found.items()) == mirror
        assert set(found) == set(mirror)
        assert sorted(found.values()) == sorted(mirror.values())
        assert len(found) == len(mirror) == len(list(found.items()))
        for key in {key for _, key in history}:
            assert (key in found) == (key in mirror)
            assert found.get(key) == mirror.get(key)
            assert found.get(key, -1) == mirror.get(key, -1)


def test_many_keys_that_all_collide_are_all_kept() -> None:
    """The trie ends where the hash has no more bits."""
    keys = [Key(name, 5) for name in range(100)]

    found = PersistentMap({key: key.name for key in keys})
    without = found.without(keys[50])

    assert [found[key] for key in keys] == list(range(100))
    assert (len(without), keys[50] in without, without[keys[51]]) == (99, False, 51)


def test_a_key_that_is_not_there_is_an_error() -> None:
    """As with a dict."""
    with pytest.raises(KeyError, match="b"):
        PersistentMap({"a": 1})["b"]


def test_none_is_a_value() -> None:
    """A key whose value is None is there."""
    found = PersistentMap[str, int | None]({"a": None})

    assert "a" in found
    assert found["a"] is None


def test_a_map_made_of_another_is_the_same() -> None:
    """From a dict of any size."""
    many = {f"key {n}": n for n in range(5000)}

    assert dict(PersistentMap(many).items()) == many
    assert len(PersistentMap()) == 0
