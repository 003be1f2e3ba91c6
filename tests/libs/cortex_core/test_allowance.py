"""Limits of a key hold in every sixty seconds, whatever comes in what order."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.access import Grant
from cortex_core.allowance import Allowance, Over

#: A pause, a prompt's size, and whether the oldest request under way ends before it.
STEPS = st.lists(
    st.tuples(st.floats(0, 20, allow_nan=False), st.integers(0, 80), st.booleans()), max_size=60
)


def most_in_any_minute(moments: Sequence[tuple[float, int]]) -> int:
    """Return the largest sum within sixty seconds that end at one of these moments."""
    sums = [sum(amount for at, amount in moments if 0 <= end - at <= 60) for end, _ in moments]
    return max(sums, default=0)


@given(
    STEPS,
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(1, 200)),
    st.integers(1, 4),
)
def test_no_limit_is_ever_passed(
    steps: list[tuple[float, int, bool]], requests: int, tokens: int | None, in_flight: int
) -> None:
    """Requests, prompts and requests under way stay within, in any sixty seconds."""
    grant = Grant(
        name="a", requests_per_minute=requests, tokens_per_minute=tokens, max_in_flight=in_flight
    )
    allowance, now = Allowance(), 500.0
    under_way: list[int] = []
    let_in: list[tuple[float, int]] = []
    used: list[tuple[float, int]] = []
    for pause, size, ends in steps:
        now += pause
        if ends and under_way:
            promised = under_way.pop(0)
            allowance.leave(grant, promised, promised, now)
            used.append((now, promised))
        admitted = allowance.enter(grant, size, now)
        if isinstance(admitted, Over):
            assert admitted.retry_after_secs > 0
            continue
        let_in.append((now, 1))
        under_way.append(admitted)

        assert len(under_way) == allowance.in_flight <= in_flight
        assert most_in_any_minute(let_in) <= requests
        if tokens is not None:
            lately = sum(amount for at, amount in used if now - at <= 60)
            assert lately + sum(under_way) <= tokens


@given(STEPS, st.integers(1, 5), st.integers(1, 100))
def test_whoever_waits_as_told_gets_in(
    steps: list[tuple[float, int, bool]], requests: int, tokens: int
) -> None:
    """Retry-After is true: with nothing under way, the request is let in then."""
    grant = Grant(name="a", requests_per_minute=requests, tokens_per_minute=tokens)
    allowance, now = Allowance(), 500.0
    for pause, size, _ in steps:
        now += pause
        admitted = allowance.enter(grant, size, now)
        if isinstance(admitted, Over):
            # One limit after the other may have to pass.
            for _ in range(3):
                if isinstance(admitted, Over):
                    now += admitted.retry_after_secs + 0.001
                    admitted = allowance.enter(grant, size, now)
        assert not isinstance(admitted, Over)
        allowance.leave(grant, admitted, size, now)


def test_a_prompt_beyond_the_whole_limit_waits_until_nothing_counts() -> None:
    """Its size is a guess, so it is let in alone, and what it used holds the next one off."""
    grant = Grant(name="a", tokens_per_minute=100)
    allowance = Allowance()

    promised = allowance.enter(grant, 5000, 10.0)
    assert promised == 100
    assert isinstance(allowance.enter(grant, 1, 10.0), Over)
    allowance.leave(grant, 100, 5000, 12.0)
    over = allowance.enter(grant, 1, 20.0)

    assert over == Over("tokens_per_minute", 100, 53.0)
    assert allowance.enter(grant, 1, 73.0) == 1


def test_tokens_are_what_was_used_not_what_was_guessed() -> None:
    """A guess that was too high is given back at the end."""
    grant = Grant(name="a", tokens_per_minute=100)
    allowance = Allowance()

    promised = allowance.enter(grant, 90, 0.0)
    assert isinstance(promised, int)
    assert [one.remaining for one in allowance.left(grant, 0.0)] == [10]
    allowance.leave(grant, promised, 5, 0.0)

    assert [one.remaining for one in allowance.left(grant, 0.0)] == [95]


@pytest.mark.parametrize("grant", [Grant(name="a"), Grant(name="a", max_in_flight=2)])
def test_what_is_not_limited_is_not_told(grant: Grant) -> None:
    """A key without limits by the minute has nothing left to tell, and nothing is refused."""
    allowance = Allowance()
    for _ in range(1000):
        promised = allowance.enter(grant, 10**9, 0.0)
        assert promised == 0
        allowance.leave(grant, 0, 10**9, 0.0)

    assert allowance.left(grant, 0.0) == ()


def test_a_limit_that_is_lowered_counts_what_was_before() -> None:
    """Another file changes the limit, not what has been used."""
    allowance = Allowance()
    wide, narrow = Grant(name="a", requests_per_minute=9), Grant(name="a", requests_per_minute=2)
    for _ in range(5):
        assert allowance.enter(wide, 1, 0.0) == 0

    assert allowance.enter(narrow, 1, 0.0) == Over("requests_per_minute", 2, 61.0)
    assert [one.remaining for one in allowance.left(narrow, 0.0)] == [0]
