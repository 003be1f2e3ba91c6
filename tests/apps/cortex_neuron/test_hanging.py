"""Hung is told from hard at work."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_neuron.hanging import MISSES, PATIENCE, Answer, Look, Suspicion

LIMIT = 20.0


def verdicts(
    looks: Sequence[tuple[bool, bool, float]], every: float = 2.5
) -> list[tuple[float, str]]:
    """Return when and why an engine counts as hung, of looks (busy, answered, processor used)."""
    suspicion, found, processor = Suspicion(LIMIT), list[tuple[float, str]](), 0.0
    for number, (busy, answered, worked) in enumerate(looks):
        processor += worked
        answer = Answer.WELL if answered else Answer.NONE
        look = Look(at=number * every, busy=busy, answer=answer, processor_secs=processor)
        if (why := suspicion.see(look)) is not None:
            found.append((look.at, why))
    return found


FROZEN, WORKING, WELL, IDLE = (
    (True, False, 0.0),
    (True, False, 2.0),
    (True, True, 0.0),
    (False, False, 0.0),
)


def test_a_frozen_engine_is_hung_after_the_limit() -> None:
    """Busy, silent and still: for as long as the limit says, and not earlier."""
    at, why = verdicts([WELL, *[FROZEN] * 12])[0]

    assert at == 2.5 + LIMIT
    assert "does nothing" in why


def test_an_engine_that_answers_is_never_hung() -> None:
    """A prefill of any length leaves the thread alone that answers."""
    assert verdicts([WELL] * 10_000) == []


def test_an_idle_engine_is_nobodys_concern() -> None:
    """Nobody waits for it."""
    assert verdicts([IDLE] * 1000) == []


def test_a_silent_engine_that_works_gets_ten_times_as_long() -> None:
    """It may be starved of processor time, or hold a lock while it computes."""
    at, why = verdicts([WORKING] * 100)[0]

    assert at == PATIENCE * LIMIT
    assert "busy as it is" in why


def test_work_restarts_the_clock_of_stillness() -> None:
    """One that stops working later is frozen from then on."""
    at, _ = verdicts([*[WORKING] * 10, *[FROZEN] * 20])[0]

    assert at == 9 * 2.5 + LIMIT


def test_one_answer_clears_all_suspicion() -> None:
    """However late it comes."""
    assert verdicts([*[FROZEN] * 8, WELL, *[FROZEN] * 8]) == []


def test_two_looks_are_not_enough() -> None:
    """A daemon that was frozen itself sees one long silence, which may be its own."""
    assert verdicts([FROZEN, FROZEN], every=100 * LIMIT) == []
    assert len(verdicts([FROZEN] * MISSES, every=100 * LIMIT)) == 1


@pytest.mark.parametrize("busy", [True, False])
def test_an_engine_that_says_it_hangs_is_taken_at_its_word(busy: bool) -> None:
    """After three looks in a row, while somebody waits for it."""
    suspicion = Suspicion(LIMIT)
    answers = [*[Answer.UNWELL] * (MISSES - 1), Answer.WELL, *[Answer.UNWELL] * MISSES]
    found = [
        suspicion.see(Look(at=number, busy=busy, answer=answer))
        for number, answer in enumerate(answers)
    ]

    assert found[:-1] == [None] * (len(answers) - 1)
    assert (found[-1] is not None) == busy


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 2.5)), max_size=120),
)
def test_nobody_is_accused_within_the_limit_of_a_sign_of_life(
    looks: list[tuple[bool, bool, float]],
) -> None:
    """An answer, idleness or (unless patience ran out) work."""
    for at, why in verdicts(looks):
        window = [looks[n] for n in range(len(looks)) if at - LIMIT <= n * 2.5 <= at]

        assert all(busy and not answered for busy, answered, _ in window)
        assert "busy as it is" in why or all(worked <= 0.05 for _, _, worked in window[1:])
