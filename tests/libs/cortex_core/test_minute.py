"""The last minute: exact against a list of everything, and never too little."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_core.minute import Minute

SPENDING = st.lists(st.tuples(st.floats(0, 40, allow_nan=False), st.integers(1, 1000)), max_size=40)


@given(SPENDING)
def test_it_counts_sixty_seconds_at_least_and_sixty_one_at_most(
    spending: list[tuple[float, int]],
) -> None:
    """Whatever was spent when: compared with a list of all of it."""
    minute, now, known = Minute(), 1000.25, []
    for pause, amount in spending:
        now += pause
        known.append((now, amount))
        minute.spend(amount, now)

        total = minute.total(now)
        assert total >= sum(amount for at, amount in known if now - at <= 60)
        assert total <= sum(amount for at, amount in known if now - at < 61)


@given(SPENDING, st.integers(0, 5000))
def test_waiting_as_long_as_told_is_enough_and_not_too_long(
    spending: list[tuple[float, int]], most: int
) -> None:
    """At the moment that is told the total is low enough, and just before it is not."""
    minute, now = Minute(), 1000.25
    for pause, amount in spending:
        now += pause
        minute.spend(amount, now)

    wait = minute.secs_until(most, now)

    assert 0 <= wait <= 61
    if wait > 0:
        assert minute.total(now + wait - 0.001) > most
    assert minute.total(now + wait + 0.001) <= most
    assert minute.secs_until_empty(now) == minute.secs_until(0, now)


@given(st.lists(st.tuples(st.floats(-100, 100, allow_nan=False), st.integers(1, 9)), max_size=20))
def test_a_clock_that_goes_back_loses_nothing_and_keeps_nothing(
    moves: list[tuple[float, int]],
) -> None:
    """What was spent counts, and a minute after the latest moment all of it is forgotten."""
    minute, now, latest = Minute(), 1000.0, 1000.0
    for move, amount in moves:
        now += move
        minute.spend(amount, now)
        latest = max(latest, now)
        assert minute.total(now) >= amount

    assert minute.total(latest + 61) == 0
