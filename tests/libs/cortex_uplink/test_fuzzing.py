"""A little of what `python -m tests.fuzz.uplink` does for as long as one likes."""

from tests.fuzz.uplink import fuzz


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
