"""A second opinion on known answers, and a little of what `make fuzz` does."""

import pytest

from tests.fuzz import front
from tests.fuzz.answers import CORPUS
from tests.fuzz.opinion import agrees, of_answer
from tests.fuzz.uplink import fuzz
from tests.libs.cortex_uplink.answers import parse


@pytest.mark.parametrize("to_head", [False, True])
def test_h11_sees_no_other_answer_in_what_we_take_for_one(to_head: bool) -> None:
    """What one of two hops reads differently is how an answer is smuggled past the other."""
    told = [(parse([raw], to_head=to_head), of_answer(raw, to_head=to_head)) for raw in CORPUS]

    assert [one for one in told if not agrees(*one)] == []
    assert sum(read is not None and read.complete and said is not None for read, said in told) > 30


def test_some_rounds_of_fuzzing_find_nothing() -> None:
    """And every kind of outcome occurs, so that they were worth something."""
    outcomes = fuzz(5, rounds=25)

    assert {
        "answers read",
        "answers refused",
        "answers cut short",
        "asked: answered",
        "asked: MalformedAnswer",
        "asked: ConnectionLost",
        "requests made",
        "requests refused",
    } <= outcomes.keys()


def test_some_rounds_of_fuzzing_the_front_find_nothing() -> None:
    """On either event loop, and every kind of outcome occurs."""
    outcomes = front.fuzz(5, rounds=60)

    assert {
        "alone: refused",
        "alone: 1 read",
        "alone: 2 read",
        "asked: left",
        "asked: kept after 1",
        "asked: kept after 2",
        "asked: refused after 0",
        "asked: refused after 1",
    } <= outcomes.keys()
