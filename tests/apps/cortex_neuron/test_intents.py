"""Every gateway speaks for its own clients."""

from cortex_core.wire import Waiting
from cortex_neuron.intents import Intents


def waiting(count: int, oldest_secs: float = 0.0) -> Waiting:
    """So many wait, the oldest for so long."""
    return Waiting(count=count, oldest_secs=oldest_secs)


def test_the_waiting_of_all_gateways_adds_up() -> None:
    """And the oldest of them all has waited the longest."""
    intents = Intents()
    intents.hear("one", waiting(3, oldest_secs=5), now=100)
    intents.hear("two", waiting(4, oldest_secs=20), now=101)
    intents.hear("one", waiting(1, oldest_secs=2), now=102)

    assert intents.count == 5
    assert intents.since == 81


def test_what_one_gateway_withdraws_leaves_the_others() -> None:
    """Its clients have gone, not theirs."""
    intents = Intents()
    intents.hear("one", waiting(3), now=100)
    intents.hear("two", waiting(1, oldest_secs=1), now=100)
    intents.hear("two", waiting(0), now=101)
    after = intents.count
    intents.hear("one", waiting(0), now=102)

    assert after == 3
    assert (intents.count, intents.since) == (0, None)


def test_a_gateway_that_is_not_heard_of_is_forgotten() -> None:
    """It may have died with all who waited in it."""
    intents = Intents()
    intents.hear("dead", waiting(9, oldest_secs=50), now=100)
    intents.hear("alive", waiting(2), now=110)
    intents.lapse(now=116, after_secs=15)

    assert (intents.count, intents.since) == (2, 110)


def test_waiting_goes_on_when_the_oldest_is_told_later() -> None:
    """A gateway's clocks may jump; who has waited does not wait less for it."""
    intents = Intents()
    intents.hear("one", waiting(1, oldest_secs=10), now=100)
    intents.hear("one", waiting(1, oldest_secs=0), now=103)

    assert intents.since == 90
