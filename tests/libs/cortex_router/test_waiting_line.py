"""Turns in a queue whose requests need room: bounded passing, work conserved, order kept."""

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cortex_router import Admitted, FairQueue, Outcome, Queued, Refused, Ticket
from cortex_router.waiting_line import MOST_PASSES, WaitingLine

NOW = 100.0
PAGES = 10


def ticket(name: str, principal: str, pages: int) -> Ticket:
    """A request for the model m."""
    return Ticket(id=name, model="m", principal=principal, since=NOW, pages=pages)


def served(*, seats: int = 9, max_waiting: int = 99) -> FairQueue:
    """A queue whose model m has so many seats and ten pages."""
    queue = FairQueue(max_waiting=max_waiting)
    queue.open("m", seats, NOW, pages=PAGES)
    return queue


def names(outcomes: tuple[Outcome, ...]) -> list[str]:
    """Who was admitted."""
    return [one.ticket.id for one in outcomes if isinstance(one, Admitted)]


def test_a_seat_without_room_is_no_seat() -> None:
    """What is asked for in pages waits until they are free, although seats are."""
    queue = served()

    assert names(queue.ask(ticket("1", "ada", 6), NOW)) == ["1"]
    assert names(queue.ask(ticket("2", "ada", 5), NOW)) == []
    assert names(queue.end("1", NOW)) == ["2"]


def test_who_needs_less_passes_who_needs_more() -> None:
    """Room that is there is used; the order within a principal stays."""
    queue = served()
    queue.ask(ticket("1", "ada", 6), NOW)
    queue.ask(ticket("2", "ada", 5), NOW)

    assert names(queue.ask(ticket("3", "ben", 4), NOW)) == ["3"]
    assert names(queue.ask(ticket("4", "ada", 1), NOW)) == []


def test_nobody_is_passed_for_ever() -> None:
    """After so many passes whoever needs much is next, and then everybody waits for it."""
    queue = served()
    queue.ask(ticket("much", "ada", 2), NOW)
    queue.ask(ticket("more", "ada", 10), NOW)
    passes = 0
    while names(queue.ask(ticket(f"{passes}", "ben", 1), NOW)):
        queue.end(f"{passes}", NOW)
        passes += 1

    assert passes == MOST_PASSES
    assert names(queue.end("much", NOW)) == ["more"]
    assert names(queue.end("more", NOW)) == [f"{passes}"]


def test_how_often_somebody_was_passed_is_forgotten_with_it() -> None:
    """Whether it is seated or leaves: a count for everybody who ever came would be a leak."""
    line = WaitingLine()
    for leaves in (False, True):
        line.append(ticket("more", "ada", 9))
        line.append(ticket("less", "ben", 1))
        line.pop(lambda _: False, lambda one: one.pages < 5)
        if leaves:
            line.discard(ticket("more", "ada", 9))
        else:
            line.pop(lambda _: False, lambda _: True)

        assert line._passed == {}  # noqa: SLF001  # nothing else shows it


def test_who_needs_more_than_there_is_has_it_alone() -> None:
    """Only whoever knows what the engine takes can refuse it; the queue does not hang on it."""
    queue = served()
    queue.ask(ticket("1", "ada", 1), NOW)

    assert names(queue.ask(ticket("2", "ben", PAGES + 1), NOW)) == []
    assert names(queue.end("1", NOW)) == ["2"]
    assert names(queue.ask(ticket("3", "ada", 1), NOW)) == []


def test_those_held_up_go_when_whoever_held_them_up_gives_up() -> None:
    """By hanging up, and by waiting too long."""
    for gives_up in ("cancel", "deadline"):
        queue = served()
        queue.ask(ticket("1", "ada", 6), NOW)
        late = Ticket(id="2", model="m", principal="ada", since=NOW, deadline=NOW + 1, pages=9)
        queue.ask(late, NOW)
        queue.ask(ticket("3", "ada", 1), NOW)
        after = queue.cancel("2", NOW) if gives_up == "cancel" else queue.expire(NOW + 1)

        assert names(after) == ["3"], gives_up


class Turns(RuleBasedStateMachine):
    """Requests of any size, served, cancelled and displaced in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = served(seats=3, max_waiting=6)
        self.number = 0
        self.seated: dict[str, Ticket] = {}
        self.waiting: dict[str, Ticket] = {}
        #: How often others were seated since somebody was its principal's first, and how often
        #: that may happen: once for each principal then before it, and the passes.
        self.held_up: dict[str, tuple[int, int]] = {}

    def take(self, outcomes: tuple[Outcome, ...]) -> None:
        """Book what happened."""
        for one in outcomes:
            name, principal = one.ticket.id, one.ticket.principal
            match one:
                case Admitted():
                    first = next(t for t in self.waiting.values() if t.principal == principal)
                    assert first.id == name, "first come, first served, within a principal"
                    del self.waiting[name]
                    self.held_up.pop(name)
                    self.seated[name] = one.ticket
                    for other, (seen, most) in self.held_up.items():
                        self.held_up[other] = (seen + 1, most)
                        assert seen < most, f"{other} waits for ever"
                    self.look_for_firsts()
                case Queued():
                    assert one.position >= 1
                case Refused():
                    self.forget(name)

    def look_for_firsts(self) -> None:
        """Begin to count for whoever has become its principal's first."""
        principals = {t.principal for t in self.waiting.values()}
        for principal in principals:
            first = next(t for t in self.waiting.values() if t.principal == principal)
            bound = len(principals) - 1 + MOST_PASSES
            self.held_up.setdefault(first.id, (0, bound))

    def forget(self, name: str) -> None:
        """Somebody has gone without a seat."""
        del self.waiting[name]
        self.held_up.pop(name, None)
        self.look_for_firsts()

    @rule(principal=st.sampled_from(["ada", "ben", "cy", "dot"]), pages=st.integers(0, PAGES + 1))
    def ask(self, principal: str, pages: int) -> None:
        """Somebody comes."""
        self.number += 1
        new = ticket(str(self.number), principal, pages)
        self.waiting[new.id] = new
        self.look_for_firsts()
        outcomes = self.queue.ask(new, NOW)
        self.take(outcomes)
        for one in outcomes:
            if isinstance(one, Refused):
                waiting = Counter(t.principal for t in self.waiting.values())
                most, mine = max(waiting.values()), waiting[one.ticket.principal]
                assert mine + 1 >= most, "who has less in a full queue is not the one to go"

    @precondition(lambda self: self.seated)
    @rule(pick=st.integers(0, 99))
    def end(self, pick: int) -> None:
        """Somebody has been served."""
        name = sorted(self.seated)[pick % len(self.seated)]
        del self.seated[name]
        self.take(self.queue.end(name, NOW))

    @precondition(lambda self: self.waiting or self.seated)
    @rule(pick=st.integers(0, 99))
    def cancel(self, pick: int) -> None:
        """Somebody hangs up, wherever it is."""
        here = sorted({**self.waiting, **self.seated})
        name = here[pick % len(here)]
        if self.seated.pop(name, None) is None:
            self.forget(name)
        self.take(self.queue.cancel(name, NOW))

    @invariant()
    def nobody_has_what_is_not_there(self) -> None:
        """Seats and pages are never given twice; one that needs too much is alone."""
        held = sum(one.pages for one in self.seated.values())

        assert len(self.seated) == self.queue.in_flight("m") <= 3
        assert len(self.waiting) == self.queue.queued("m") <= 6
        assert held <= PAGES or len(self.seated) == 1

    @invariant()
    def nothing_idles_that_somebody_may_have(self) -> None:
        """Seats and room for a principal's first are free only behind one passed often enough."""
        free = PAGES - sum(one.pages for one in self.seated.values())
        firsts = [self.waiting[name] for name in self.held_up if name in self.waiting]
        if len(self.seated) < 3 and any(t.pages <= free or not self.seated for t in firsts):
            assert any(t.pages > free and self.held_up[t.id][0] >= MOST_PASSES for t in firsts), (
                "a seat with room for somebody idles"
            )


TestTurns = Turns.TestCase
TestTurns.settings = settings(max_examples=120, stateful_step_count=40)
