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
    books.settle("old", {0: 8})
    books.observe({0: 2}, {"old": {0: 8}})

    books.reserve("new", (0,), 9, leaving=["old"])

    assert books.room_mb(0) == 2 - 9


def test_memory_already_taken_by_a_load_in_progress_counts_once() -> None:
    """While an engine fills up, its promise shrinks by what the reading shows."""
    books = ledger(10)
    books.reserve("m", (0,), 8)
    books.observe({0: 5}, {"m": {0: 5}})

    assert books.reserved_mb(0) == 3
    assert books.room_mb(0) == 2


def test_settling_replaces_the_guess() -> None:
    """What an engine really took is what counts."""
    books = ledger(10)
    books.reserve("m", (0,), 8)
    books.observe({0: 6}, {"m": {0: 4}})
    books.settle("m", {0: 4})

    assert books.reserved_mb(0) == 0
    assert books.room_mb(0) == 6


def test_released_memory_is_what_the_next_reading_says() -> None:
    """Nothing is promised that nobody has seen come back."""
    books = ledger(10)
    books.reserve("m", (0,), 8)
    books.settle("m", {0: 8})
    books.observe({0: 2}, {"m": {0: 8}})

    books.release("m")
    before = books.room_mb(0)
    books.observe({0: 9}, {})

    assert (before, books.room_mb(0)) == (2, 9)


def test_each_device_settles_to_what_is_held_there() -> None:
    """An engine need not split evenly, and gives back on each device what it holds there."""
    books = ledger(20, 20)
    books.reserve("m", (0, 1), 16)
    books.observe({0: 9, 1: 15}, {"m": {0: 11, 1: 5}})
    books.settle("m", {0: 11, 1: 5})

    assert books.held["m"].shares_mb == {0: 11, 1: 5}
    assert (books.room_mb(0, ["m"]), books.room_mb(1, ["m"])) == (20, 20)


def test_without_shares_of_processes_a_lone_load_settles_to_what_has_gone() -> None:
    """Where NVML does not tell whose memory is whose, the difference does."""
    books = ledger(20)
    books.reserve("m", (0,), 8)
    books.begin("m")
    books.observe({0: 14}, {})
    books.settle("m", None)

    assert books.held["m"].shares_mb == {0: 6}


def test_two_loads_at_once_keep_their_promises_where_nobody_can_tell() -> None:
    """Then what has gone is neither's."""
    books = ledger(20)
    for model in ("m", "n"):
        books.reserve(model, (0,), 8)
        books.begin(model)
    books.observe({0: 5}, {})
    books.settle("m", None)

    assert books.held["m"].shares_mb == {0: 8}


def test_what_a_dead_engine_held_stays_promised_to_it() -> None:
    """While it recovers nobody else is given its memory."""
    books = ledger(20)
    books.reserve("m", (0,), 8)
    books.settle("m", {0: 6})
    books.begin("m")
    books.observe({0: 20}, {})

    assert (books.reserved_mb(0), books.room_mb(0)) == (6, 14)


def test_memory_that_a_stranger_took_is_missed_before_the_start() -> None:
    """What was promised on the strength of an eviction has to be there."""
    books = ledger(10)
    books.reserve("old", (0,), 8)
    books.settle("old", {0: 8})
    books.observe({0: 2}, {"old": {0: 8}})
    books.reserve("new", (0,), 9, leaving=["old"])
    books.release("old")
    books.observe({0: 10}, {})
    enough = books.missing_mb("new")
    books.observe({0: 4}, {})

    assert (enough, books.missing_mb("new")) == (0, 5)


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
                books.settle(model, books.held[model].shares_mb)
                taken = sum(h.whole_mb for h in books.held.values() if h.settled)
                books.observe({0: 20 - taken}, {})
            case "release":
                books.release(model)

        assert sum(held.whole_mb for held in books.held.values()) <= 20
