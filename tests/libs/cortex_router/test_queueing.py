"""The fair queue: seats by turns, bounds, deadlines, and tickets that leave no trace."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cortex_router import Admitted, FairQueue, Outcome, Queued, Refused, Ticket, Waiting

NOW = 100.0


def ticket(
    name: str, principal: str = "ada", *, since: float = NOW, deadline: float | None = None
) -> Ticket:
    """A request for the model m."""
    return Ticket(id=name, model="m", principal=principal, since=since, deadline=deadline)


def served(*, seats: int = 1, max_waiting: int = 4, max_per_principal: int = 9) -> FairQueue:
    """A queue whose model m is being served."""
    queue = FairQueue(max_waiting=max_waiting, max_per_principal=max_per_principal)
    queue.open("m", seats, NOW)
    return queue


def names(outcomes: tuple[Outcome, ...]) -> list[str]:
    """Who was admitted."""
    return [one.ticket.id for one in outcomes if isinstance(one, Admitted)]


def test_a_free_seat_is_taken_at_once() -> None:
    """Nobody waits who need not."""
    assert served().ask(ticket("1"), NOW) == (Admitted(ticket("1")),)


def test_a_principal_with_many_requests_does_not_delay_another() -> None:
    """Principals that wait take turns, however many requests one of them has."""
    queue = served()
    for name in ("1", "2", "3", "4"):
        queue.ask(ticket(name), NOW)
    queued = queue.ask(ticket("5", "ben"), NOW)
    order = [names(queue.end(name, NOW))[0] for name in ("1", "2", "5", "3")]

    assert queued == (Queued(ticket("5", "ben"), 2, 20.0),)
    assert order == ["2", "5", "3", "4"]


def test_who_has_enough_in_flight_lets_others_go_first() -> None:
    """A principal at its limit waits while another does, and has every seat when none does."""
    queue = served(seats=2, max_per_principal=1)
    first = [*queue.ask(ticket("1"), NOW), *queue.ask(ticket("2"), NOW)]
    queue.ask(ticket("3"), NOW)
    queue.ask(ticket("4", "ben"), NOW)

    assert [type(one) for one in first] == [Admitted, Admitted]
    assert names(queue.end("1", NOW)) == ["4"]
    assert names(queue.end("4", NOW)) == ["3"]


def test_a_full_queue_refuses_with_a_time_to_come_back() -> None:
    """The time follows from how many wait, the seats, and how long requests take."""
    queue = served(max_waiting=2)
    for name in ("1", "2", "3"):
        queue.ask(ticket(name), NOW)

    assert queue.ask(ticket("4"), NOW) == (Refused(ticket("4"), "queue_full", 30.0),)


def test_a_full_queue_takes_from_whoever_has_the_most() -> None:
    """A newcomer with less takes the place of the greediest's last; an equal does not."""
    queue = served(max_waiting=2)
    for name in ("1", "2", "3"):
        queue.ask(ticket(name), NOW)
    taken = queue.ask(ticket("4", "ben"), NOW)
    refused = queue.ask(ticket("5", "cy"), NOW)

    assert taken == (
        Refused(ticket("3"), "queue_full", 20.0),
        Queued(ticket("4", "ben"), 2, 20.0),
    )
    assert [type(one) for one in refused] == [Refused]


def test_a_deadline_ends_the_waiting_but_not_the_service() -> None:
    """Whoever has a seat keeps it; whoever waits too long is refused, once."""
    queue = served()
    queue.ask(ticket("1", deadline=NOW + 1), NOW)
    queue.ask(ticket("2", deadline=NOW + 2), NOW)

    assert queue.next_deadline() == NOW + 2
    assert queue.expire(NOW + 1) == ()
    assert queue.expire(NOW + 2) == (Refused(ticket("2", deadline=NOW + 2), "deadline", 10.0),)
    assert queue.next_deadline() is None
    assert queue.in_flight("m") == 1


def test_a_deadline_that_has_passed_is_refused_at_the_door() -> None:
    """Even where a seat is free."""
    late = ticket("1", deadline=NOW)

    assert served().ask(late, NOW) == (Refused(late, "deadline", 10.0),)


def test_the_deadline_of_an_id_that_left_does_not_hit_its_successor() -> None:
    """A cancelled ticket leaves nothing that a later one with its id could stumble over."""
    queue = served()
    queue.ask(ticket("1"), NOW)
    queue.ask(ticket("2", deadline=NOW + 1), NOW)
    queue.cancel("2", NOW)
    queue.ask(ticket("2", deadline=NOW + 9), NOW)

    assert queue.expire(NOW + 5) == ()
    assert queue.queued("m") == 1


@pytest.mark.parametrize("seats", [1, 3])
def test_deadlines_of_those_who_wait_no_longer_are_let_go(seats: int) -> None:
    """A busy queue must not remember everybody who ever came until their time would be over."""
    queue = served(seats=seats)
    queue.ask(ticket("0"), NOW)
    for number in range(1, 1000):
        queue.ask(ticket(str(number), deadline=NOW + 60), NOW)
        queue.end(str(number - 1), NOW + 1)

    assert len(queue._deadlines) < 100  # noqa: SLF001  # nothing else shows a leak so early
    assert queue.next_deadline() is None


def test_cancelling_frees_the_seat_for_the_next() -> None:
    """And cancelling somebody unknown is no error: it may just have ended."""
    queue = served()
    queue.ask(ticket("1"), NOW)
    queue.ask(ticket("2", "ben"), NOW)

    assert names(queue.cancel("1", NOW)) == ["2"]
    assert queue.cancel("1", NOW) == ()


def test_an_id_cannot_be_here_twice() -> None:
    """It would be impossible to tell which of them ends."""
    queue = served()
    queue.ask(ticket("1"), NOW)

    with pytest.raises(ValueError, match="already here"):
        queue.ask(ticket("1"), NOW)


def test_who_waits_for_a_model_that_is_not_served_is_demand() -> None:
    """They are counted with the age of the oldest, and seated in order once it is there."""
    queue = FairQueue(max_waiting=4, max_per_principal=9)
    queued = queue.ask(ticket("1", since=7.0), NOW)
    queue.ask(ticket("2", "ben", since=5.0), NOW)

    assert queued == (Queued(ticket("1", since=7.0), 1, None),)
    assert queue.waiting("m") == Waiting(2, 5.0)
    assert queue.wanted() == ("m",)
    assert names(queue.open("m", 2, NOW)) == ["1", "2"]
    assert queue.waiting("m") is None
    assert queue.wanted() == ()


def test_a_closing_model_serves_out_its_queue_and_no_newcomer() -> None:
    """Newcomers are demand for its return, although a seat is free."""
    queue = served()
    queue.ask(ticket("1"), NOW)
    queue.ask(ticket("2"), NOW)
    queue.close("m")
    late = queue.ask(ticket("3"), NOW)

    assert late == (Queued(ticket("3"), 2, 20.0),)
    assert queue.waiting("m") == Waiting(1, NOW)
    assert names(queue.end("1", NOW)) == ["2"]
    assert names(queue.end("2", NOW)) == []
    assert names(queue.open("m", 1, NOW)) == ["3"]


def test_who_waited_when_a_model_went_keeps_its_place() -> None:
    """Whoever waited for a seat goes before whoever came when it was closed already."""
    queue = served()
    for name in ("1", "2"):
        queue.ask(ticket(name), NOW)
    queue.close("m")
    queue.ask(ticket("3"), NOW)
    queue.shut("m")

    assert queue.waiting("m") == Waiting(2, NOW)
    assert names(queue.cancel("1", NOW)) == []
    assert names(queue.open("m", 2, NOW)) == ["2", "3"]


def test_the_expected_wait_follows_what_requests_really_take() -> None:
    """The first guess is ten seconds; quick requests make it shorter."""
    queue = served()
    for _ in range(100):
        queue.ask(ticket("1"), NOW)
        queue.end("1", NOW + 2.0)
    queue.ask(ticket("1"), NOW)
    (queued,) = queue.ask(ticket("2"), NOW)

    assert isinstance(queued, Queued)
    assert queued.eta_secs == pytest.approx(2.0, abs=0.01)


def test_one_answer_says_more_than_a_guess() -> None:
    """The first that has ended is what the next is thought to take."""
    queue = served()
    queue.ask(ticket("1"), NOW)
    queue.ask(ticket("2"), NOW)
    queue.end("1", NOW + 3.0)
    (queued,) = queue.ask(ticket("3"), NOW)

    assert isinstance(queued, Queued)
    assert queued.eta_secs == 3.0


class Fairness(RuleBasedStateMachine):
    """Anything in any order: no seat idles while somebody waits for it, nobody gets lost."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue(max_waiting=3, max_per_principal=1)
        self.now, self.number, self.seats = NOW, 0, 0
        self.open = False
        self.seated: list[str] = []
        self.here: dict[str, str] = {}

    def take(self, outcomes: tuple[Outcome, ...]) -> None:
        """Book what happened; nobody is told twice."""
        for one in outcomes:
            if isinstance(one, Admitted):
                assert one.ticket.id not in self.seated
                self.seated.append(one.ticket.id)
            elif isinstance(one, Refused):
                assert self.here.pop(one.ticket.id, None) is not None
                assert one.ticket.id not in self.seated
                assert one.retry_after_secs >= 1

    @rule(
        principal=st.sampled_from(["ada", "ben", "cy"]),
        patience=st.one_of(st.none(), st.integers(0, 3)),
    )
    def ask(self, principal: str, patience: int | None) -> None:
        """Somebody comes."""
        self.number += 1
        deadline = None if patience is None else self.now + patience
        new = ticket(str(self.number), principal, since=self.now, deadline=deadline)
        self.here[new.id] = principal
        self.take(self.queue.ask(new, self.now))

    @precondition(lambda self: self.seated)
    @rule(pick=st.integers(0, 99))
    def end(self, pick: int) -> None:
        """Somebody has been served."""
        name = self.seated.pop(pick % len(self.seated))
        del self.here[name]
        self.take(self.queue.end(name, self.now))

    @precondition(lambda self: self.here)
    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        """Somebody hangs up, wherever it is."""
        name = sorted(self.here)[pick % len(self.here)]
        del self.here[name]
        if name in self.seated:
            self.seated.remove(name)
        self.take(self.queue.cancel(name, self.now))

    @rule(secs=st.integers(1, 3))
    def time_passes(self, secs: int) -> None:
        """Deadlines pass."""
        self.now += secs
        self.take(self.queue.expire(self.now))
        due = self.queue.next_deadline()
        assert due is None or due > self.now

    @rule(seats=st.integers(1, 3))
    def opens(self, seats: int) -> None:
        """The model serves."""
        self.seats, self.open = seats, True
        self.take(self.queue.open("m", seats, self.now))

    @rule()
    def closes(self) -> None:
        """The model makes way."""
        self.open = False
        self.queue.close("m")

    @rule()
    def goes(self) -> None:
        """The model has gone."""
        self.seats, self.open = 0, False
        self.queue.shut("m")

    @invariant()
    def everybody_is_somewhere(self) -> None:
        """Who is here is served, waits for a seat, or waits for the model: counted once."""
        waiting = self.queue.waiting("m")
        later = waiting.count if waiting else 0

        assert self.queue.in_flight("m") == len(self.seated)
        assert len(self.seated) + self.queue.queued("m") + later == len(self.here)
        assert self.queue.queued("m") + later <= 3
        assert not (self.open and later)
        assert not self.queue.queued("m") or len(self.seated) >= self.seats


TestFairness = Fairness.TestCase
TestFairness.settings = settings(max_examples=60, stateful_step_count=40)
