"""Memory is promised once, and comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InsufficientVram
from cortex_neuron.ledger import Ledger


def ledger(*free: int) -> Ledger:
    """Devices 0, 1, … with this much free."""
    made = Ledger(dict.fromkeys(range(len(free)), 100))
    made.observe(dict(enumerate(free)), {})
    return made


def test_a_promise_takes_room_before_anything_is_loaded() -> None:
    """Two loads cannot both count on the same free memory."""
    books = ledger(10)
    books.reserve("one", (0,), 8)

    with pytest.raises(InsufficientVram) as refused:
        books.reserve("two", (0,), 8)

    assert refused.value.extra["free_mb"] == 2
    assert "two" not in books.held


def test_each_device_bears_an_even_share() -> None:
    """Rounded up, and every device is checked by itself."""
    books = ledger(10, 4)

    with pytest.raises(InsufficientVram) as refused:
        books.reserve("wide", (0, 1), 9)

    assert [d["index"] for d in refused.value.extra["per_device"]] == [0, 1]
    assert books.held == {}


def test_what_leaves_makes_room() -> None:
    """A victim's share counts as free for the newcomer it leaves for."""
    books = ledger(10)
    books.reserve("old", (0,), 8)
    books.settle("old", 8)
    books.observe({0: 2}, {"old": 8})

    books.reserve("new", (0,), 9, leaving=["old"])

    assert books.room_mb(0) == 2 - 9


def test_memory_already_taken_by_a_load_in_progress_counts_once() -> None:
    """While an engine fills up, its promise shrinks by what the reading shows."""
    books = ledger(10)
    books.reserve("m", (0,), 8)
    books.observe({0: 5}, {"m": 5})

    assert books.reserved_mb(0) == 3
    assert books.room_mb(0) == 2


def test_settling_replaces_the_guess() -> None:
    """What an engine really took is what counts."""
    books = ledger(10)
    books.reserve("m", (0,), 8)
    books.observe({0: 6}, {"m": 4})
    books.settle("m", 4)

    assert books.reserved_mb(0) == 0
    assert books.room_mb(0) == 6


def test_released_memory_is_free_at_once() -> None:
    """Nobody has to wait for the next reading."""
    books = ledger(10)
    books.reserve("m", (0,), 8)
    books.settle("m", 8)
    books.observe({0: 2}, {"m": 8})

    books.release("m")

    assert books.room_mb(0) == 10


def test_an_unknown_reading_keeps_the_last_good_one() -> None:
    """None is not zero."""
    books = ledger(10)
    books.observe({0: None}, {})

    assert books.room_mb(0) == 10


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.sampled_from(["reserve", "settle", "release"]),
            st.integers(1, 12),
        ),
        max_size=30,
    )
)
def test_promises_never_exceed_what_is_there(steps: list[tuple[str, str, int]]) -> None:
    """Whatever the order of events, the sum of shares stays within the device."""
    books = ledger(20)
    for model, action, size in steps:
        match action:
            case "reserve" if model not in books.held:
                try:
                    books.reserve(model, (0,), size)
                except InsufficientVram:
                    continue
            case "settle" if model in books.held and not books.held[model].settled:
                books.settle(model, books.held[model].share_mb)
                taken = sum(h.share_mb for h in books.held.values() if h.settled)
                books.observe({0: 20 - taken}, {})
            case "release":
                books.release(model)

        assert sum(held.share_mb for held in books.held.values()) <= 20
