"""A replica that fails again and again is left alone for a while, then tried once."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_router import Circuit
from cortex_router.circuit import CLOSED, FIRST_PAUSE_SECS, LONGEST_PAUSE_SECS, THRESHOLD


def opened(at: float = 0.0) -> Circuit:
    """A circuit that has just opened."""
    circuit = CLOSED
    for _ in range(THRESHOLD):
        circuit = circuit.failed(at)
    return circuit


def test_it_opens_after_so_many_failures_in_a_row() -> None:
    """And not one earlier; an answer in between starts the count anew."""
    almost = CLOSED.failed(0.0).failed(0.0)

    assert almost.lets_through(0.0)
    assert almost.succeeded().failed(0.0).failed(0.0).lets_through(0.0)
    assert not almost.failed(0.0).lets_through(0.0)


def test_when_its_pause_is_over_one_trial_may_pass() -> None:
    """One, not all who wait."""
    circuit = opened()
    before, after = FIRST_PAUSE_SECS - 0.1, FIRST_PAUSE_SECS

    assert not circuit.lets_through(before)
    assert circuit.lets_through(after)
    assert not circuit.sent(after).lets_through(after)
    assert circuit.sent(before) == circuit


def test_a_trial_that_succeeds_closes_it() -> None:
    """As if nothing had been."""
    assert opened().sent(FIRST_PAUSE_SECS).succeeded() == CLOSED


def test_a_trial_that_fails_doubles_the_pause_up_to_the_longest() -> None:
    """5, 10, 20, 40, 80, 120, 120 seconds."""
    circuit, now, pauses = opened(), 0.0, list[float]()
    for _ in range(7):
        assert circuit.open_until is not None
        pauses.append(circuit.open_until - now)
        now = circuit.open_until
        circuit = circuit.sent(now).failed(now)

    assert pauses == [5.0, 10.0, 20.0, 40.0, 80.0, LONGEST_PAUSE_SECS, LONGEST_PAUSE_SECS]


def test_a_trial_that_was_given_up_makes_room_for_another() -> None:
    """A client that hung up says nothing about the replica."""
    circuit = opened().sent(FIRST_PAUSE_SECS).abandoned()

    assert circuit.lets_through(FIRST_PAUSE_SECS)
    assert CLOSED.abandoned() is CLOSED


def test_failures_of_requests_sent_before_it_opened_do_not_prolong_the_pause() -> None:
    """Ten requests that fail together are one outage."""
    circuit = opened()

    assert circuit.failed(1.0).open_until == circuit.open_until
    assert circuit.failed(1.0).failures == circuit.failures + 1


@given(
    st.lists(
        st.tuples(st.sampled_from(["sent", "failed", "succeeded", "abandoned"]), st.integers(0, 9))
    )
)
def test_nobody_is_shut_out_for_ever(history: list[tuple[str, int]]) -> None:
    """Whatever happened, the pause ends, and at most one trial is under way."""
    circuit, now = CLOSED, 0.0
    for what, later in history:
        now += later
        match what:
            case "sent":
                circuit = circuit.sent(now)
            case "failed":
                circuit = circuit.failed(now)
            case "abandoned":
                circuit = circuit.abandoned()
            case _:
                circuit = circuit.succeeded()

        assert circuit.trial or circuit.lets_through(now + LONGEST_PAUSE_SECS)
        assert not (circuit.trial and circuit.open_until is None)
        assert circuit.abandoned().lets_through(now + LONGEST_PAUSE_SECS)


def test_a_clock_set_back_does_not_make_a_pause_longer_than_any_is() -> None:
    """A day earlier, the replica is tried like any whose pause is over."""
    circuit = opened()
    earlier = (circuit.open_until or 0.0) - 86_400

    assert circuit.lets_through(earlier)
    assert circuit.sent(earlier).trial
    assert not circuit.sent(earlier).lets_through(earlier)
    assert circuit.sent(earlier).succeeded() is CLOSED
