"""The retry budget: a floor, a share, a window, and a bound that no order of events breaks."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_router import RetryBudget
from cortex_router.retry_budget import FLOOR, SHARE, WINDOW_SECS

NOW = 1000.0


def after(requests: int, retries: int, now: float = NOW) -> RetryBudget:
    """A budget after so many requests, and so many that were sent again."""
    budget = RetryBudget()
    for _ in range(requests):
        budget = budget.asked(now)
    for _ in range(retries):
        budget = budget.retried(now) or budget
    return budget


def test_a_few_are_always_sent_again() -> None:
    """Where one person asks, one failure must not be beyond the budget."""
    assert after(1, 0).left(NOW) == FLOOR
    assert after(1, FLOOR).retried(NOW) is None


def test_beyond_those_it_is_a_share_of_the_requests() -> None:
    """A fifth, of what came in the same seconds."""
    assert after(100, 0).left(NOW) == FLOOR + 20
    assert after(100, 50).left(NOW) == 0


def test_what_is_ten_seconds_old_no_longer_counts() -> None:
    """Neither the requests that allow a retry, nor the retries that use it up."""
    spent = after(100, 30)

    assert spent.left(NOW + WINDOW_SECS - 1) == 0
    assert spent.left(NOW + WINDOW_SECS) == FLOOR


def test_every_second_goes_by_itself() -> None:
    """Not all at once, when the first of them gets too old."""
    budget = after(0, 3)
    for _ in range(7):
        budget = budget.retried(NOW + 5) or budget

    assert budget.left(NOW + 9) == 0
    assert budget.left(NOW + 10) == 3
    assert budget.left(NOW + 15) == FLOOR


def test_a_clock_set_back_forgets() -> None:
    """It withholds nothing for a day because of a second that is not over."""
    assert after(0, FLOOR).left(NOW - 86400) == FLOOR


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(0, 20), st.integers(0, 20)), max_size=40),
)
def test_a_fleet_that_fails_never_gets_more_than_its_share_on_top(
    rounds: list[tuple[float, int, int]],
) -> None:
    """Whenever one is sent again: in the window are the floor and a fifth of its requests."""
    budget, now = RetryBudget(), NOW
    came: list[int] = []
    again: list[int] = []
    for pause, requests, wanted in rounds:
        now += pause
        for _ in range(requests):
            budget = budget.asked(now)
            came.append(int(now))
        for _ in range(wanted):
            left = budget.left(now)
            spent = budget.retried(now)
            assert (spent is None) == (left == 0)
            if spent is None:
                break
            budget = spent
            again.append(int(now))
            assert budget.left(now) == left - 1
            lately = range(int(now) - WINDOW_SECS + 1, int(now) + 1)
            share = SHARE * sum(second in lately for second in came)
            assert sum(second in lately for second in again) <= FLOOR + share
