"""Who gets a seat of a model next: bounded, fair between principals, nobody for ever.

A `FairQueue` holds everybody who is served or waits on one node, a lane for each model. It does no
I/O and reads no clock: whoever owns it tells it what happens and carries out what it returns. It is
changed in place, as its one owner never looks back: a copy for every request would cost as much as
the queue is long and nobody would read it.

1. A lane has seats while its model serves, none before. Who finds no seat waits.
2. Principals that wait take turns; within one, first come, first served. One that has
   `max_per_principal` in flight lets the others go first; a seat that only it wants is its own.
3. Where a lane has pages, requests hold theirs as long as their seat. One that needs more than are
   free may be passed by other principals' that need less, `MOST_PASSES` times; then all wait for
   it. One that needs more than there are is served alone.
4. A lane is full at `max_waiting`. Then whoever has the most waiting makes room: a newcomer with
   two fewer takes the place of that one's last; else it is refused itself.
5. A lane that closes serves out who waits already. Newcomers wait until it opens again.
6. Who waits past its deadline is refused. A cancelled ticket leaves no trace.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import ceil
from typing import Literal, TypeAlias

from cortex_router.waiting_line import Ticket, WaitingLine

#: How long a request is thought to take until one has ended, and how fast that is learnt.
FIRST_GUESS_SECS = 10.0
LEARNING_RATE = 0.1
LONGEST_RETRY_SECS = 600.0
_SPARE_DEADLINES = 64


@dataclass(frozen=True, slots=True)
class Admitted:
    """It has a seat."""

    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Queued:
    """It waits as the `position`-th. `eta_secs` is None as long as its model is not served."""

    ticket: Ticket
    position: int
    eta_secs: float | None


@dataclass(frozen=True, slots=True)
class Refused:
    """It gets no seat; trying again makes sense after `retry_after_secs`."""

    ticket: Ticket
    code: Literal["queue_full", "deadline"]
    retry_after_secs: float


Outcome: TypeAlias = Admitted | Queued | Refused


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many wait for a model to be served (again), and since when the oldest does."""

    count: int
    since: float


class FairQueue:
    """Everybody who is served or waits on one node. Methods return what happened, in order."""

    def __init__(self, *, max_waiting: int, max_per_principal: int | None = None) -> None:
        self._max_waiting = max_waiting
        self._max_per_principal = max_per_principal
        self._lanes: dict[str, _Lane] = {}
        self._tickets: dict[str, Ticket] = {}
        self._seated_at: dict[str, float] = {}
        self._deadlines: list[tuple[float, str]] = []

    def ask(self, ticket: Ticket, now: float) -> tuple[Outcome, ...]:
        """Take in a request. Raises ValueError for an id that is already here."""
        if ticket.id in self._tickets:
            raise ValueError(f"ticket {ticket.id!r} is already here")
        lane = self._lanes.setdefault(ticket.model, _Lane())
        if ticket.deadline is not None and ticket.deadline <= now:
            return (self._refused(ticket, "deadline"),)
        outcomes: list[Outcome] = []
        free = lane.open and lane.has_seat_for(ticket) and not lane.batch.count
        if not free and lane.count >= self._max_waiting:
            last = lane.last_of_the_greediest(ticket.principal)
            if last is None:
                return (self._refused(ticket, "queue_full"),)
            self._drop(last)
            outcomes.append(self._refused(last, "queue_full"))
        self._tickets[ticket.id] = ticket
        line = lane.newcomers
        line.append(ticket)
        seated = self._seat(lane, now)
        if ticket.id not in self._seated_at:
            self._watch(ticket)
            position = line.position(ticket) + (0 if line is lane.batch else lane.batch.count)
            outcomes.append(Queued(ticket, position, lane.eta_secs(position)))
        return (*outcomes, *seated)

    def end(self, ticket_id: str, now: float) -> tuple[Outcome, ...]:
        """Take in that a request has been served, so that its seat is free.

        One that failed is cancelled instead: nothing can be learnt from how long it took.
        """
        ticket = self._tickets.pop(ticket_id)
        lane = self._lanes[ticket.model]
        lane.learn(now - self._seated_at.pop(ticket_id))
        lane.leave(ticket)
        return self._seat(lane, now)

    def cancel(self, ticket_id: str, now: float) -> tuple[Outcome, ...]:
        """Take out a request, wherever it is; one that is unknown or gone is no error."""
        ticket = self._tickets.get(ticket_id)
        if ticket is None:
            return ()
        lane = self._lanes[ticket.model]
        self._drop(ticket)
        return self._seat(lane, now)

    def expire(self, now: float) -> tuple[Outcome, ...]:
        """Refuse everybody whose deadline has passed while it waited, and seat whom it held up."""
        outcomes: list[Outcome] = []
        models: set[str] = set()
        while self._deadlines and self._deadlines[0][0] <= now:
            ticket = self._late(*heappop(self._deadlines))
            if ticket is not None:
                self._drop(ticket)
                models.add(ticket.model)
                outcomes.append(self._refused(ticket, "deadline"))
        for model in sorted(models):
            outcomes += self._seat(self._lanes[model], now)
        return tuple(outcomes)

    def open(
        self, model: str, seats: int, now: float, *, pages: int | None = None
    ) -> tuple[Outcome, ...]:
        """Give a model's lane so many seats, and pages where they are scarce: it serves now."""
        lane = self._lanes.setdefault(model, _Lane())
        lane.seats, lane.pages, lane.open = seats, pages, True
        lane.batch.take_over(lane.later)
        return self._seat(lane, now)

    def close(self, model: str) -> None:
        """Serve out who waits for a model already; newcomers wait until it opens again."""
        self._lanes.setdefault(model, _Lane()).open = False

    def shut(self, model: str) -> None:
        """Give nobody a seat: the model has gone. Whoever waited waits on."""
        lane = self._lanes.setdefault(model, _Lane())
        lane.seats, lane.open = 0, False
        lane.batch.take_over(lane.later)
        lane.later, lane.batch = lane.batch, lane.later

    def in_flight(self, model: str) -> int:
        """Return how many have a seat."""
        lane = self._lanes.get(model)
        return 0 if lane is None else lane.in_flight

    def queued(self, model: str) -> int:
        """Return how many wait for a seat that they will get before the model may leave."""
        lane = self._lanes.get(model)
        return 0 if lane is None else lane.batch.count

    def waiting(self, model: str) -> Waiting | None:
        """Return who waits for the model to be served (again): demand for a load."""
        lane = self._lanes.get(model)
        if lane is None or not lane.later.count:
            return None
        return Waiting(lane.later.count, lane.later.oldest_since())

    def wanted(self) -> tuple[str, ...]:
        """Return the models that somebody waits for, although they are not being served."""
        return tuple(sorted(model for model, lane in self._lanes.items() if lane.later.count))

    def next_deadline(self) -> float | None:
        """Return when `expire` has something to do, None when never."""
        while self._deadlines:
            deadline, ticket_id = self._deadlines[0]
            if self._late(deadline, ticket_id) is not None:
                return deadline
            heappop(self._deadlines)
        return None

    def _watch(self, ticket: Ticket) -> None:
        """Keep the deadline of one that waits; those of others are let go once they are many."""
        if ticket.deadline is None:
            return
        heappush(self._deadlines, (ticket.deadline, ticket.id))
        if len(self._deadlines) > 2 * len(self._tickets) + _SPARE_DEADLINES:
            self._deadlines = [one for one in self._deadlines if self._late(*one) is not None]
            heapify(self._deadlines)

    def _late(self, deadline: float, ticket_id: str) -> Ticket | None:
        """Return the ticket that this deadline is still about: it waits, and its id is not new."""
        ticket = self._tickets.get(ticket_id)
        if ticket is None or ticket.deadline != deadline or ticket_id in self._seated_at:
            return None
        return ticket

    def _seat(self, lane: "_Lane", now: float) -> tuple[Outcome, ...]:
        outcomes: list[Outcome] = []
        while lane.in_flight < lane.seats and lane.batch.count:
            ticket = lane.batch.pop(self._is_content(lane), lane.has_seat_for)
            if ticket is None:
                break
            lane.enter(ticket)
            self._seated_at[ticket.id] = now
            outcomes.append(Admitted(ticket))
        return tuple(outcomes)

    def _is_content(self, lane: "_Lane") -> Callable[[str], bool]:
        """Return what tells whether a principal has to let others go first."""
        most = self._max_per_principal
        return lambda principal: most is not None and lane.by_principal.get(principal, 0) >= most

    def _drop(self, ticket: Ticket) -> None:
        del self._tickets[ticket.id]
        lane = self._lanes[ticket.model]
        if self._seated_at.pop(ticket.id, None) is not None:
            lane.leave(ticket)
        else:
            lane.discard(ticket)

    def _refused(self, ticket: Ticket, code: Literal["queue_full", "deadline"]) -> Refused:
        return Refused(ticket, code, self._lanes[ticket.model].retry_after_secs())


@dataclass(slots=True)
class _Lane:
    """One model: its seats, `batch` who get them next, `later` who wait for the next opening."""

    seats: int = 0
    pages: int | None = None
    open: bool = False
    in_flight: int = 0
    pages_held: int = 0
    measured_secs: float | None = None
    by_principal: dict[str, int] = field(default_factory=dict)
    batch: WaitingLine = field(default_factory=WaitingLine)
    later: WaitingLine = field(default_factory=WaitingLine)

    @property
    def count(self) -> int:
        return self.batch.count + self.later.count

    @property
    def newcomers(self) -> WaitingLine:
        return self.batch if self.open else self.later

    @property
    def service_secs(self) -> float:
        return FIRST_GUESS_SECS if self.measured_secs is None else self.measured_secs

    def has_seat_for(self, ticket: Ticket) -> bool:
        if self.in_flight >= self.seats:
            return False
        alone = not self.in_flight
        return alone or self.pages is None or self.pages_held + ticket.pages <= self.pages

    def enter(self, ticket: Ticket) -> None:
        self.in_flight += 1
        self.pages_held += ticket.pages
        principal = ticket.principal
        self.by_principal[principal] = self.by_principal.get(principal, 0) + 1

    def leave(self, ticket: Ticket) -> None:
        self.in_flight -= 1
        self.pages_held -= ticket.pages
        principal = ticket.principal
        self.by_principal[principal] -= 1
        if not self.by_principal[principal]:
            del self.by_principal[principal]

    def discard(self, ticket: Ticket) -> None:
        if not self.batch.discard(ticket):
            self.later.discard(ticket)

    def learn(self, took_secs: float) -> None:
        took = max(0.0, took_secs)
        before = took if self.measured_secs is None else self.measured_secs
        self.measured_secs = before + LEARNING_RATE * (took - before)

    def eta_secs(self, position: int) -> float | None:
        return position * self.service_secs / self.seats if self.seats else None

    def retry_after_secs(self) -> float:
        """Return how long until those who wait now will have been served, whole seconds."""
        length = ceil((self.count + 1) * self.service_secs / max(1, self.seats))
        return float(min(LONGEST_RETRY_SECS, max(1, length)))

    def last_of_the_greediest(self, asking: str) -> Ticket | None:
        """Return whose place a newcomer of `asking` may take: None when nobody has so many more."""
        sizes: dict[str, int] = {}
        for line in (self.batch, self.later):
            for size, principal in line.sizes():
                sizes[principal] = sizes.get(principal, 0) + size
        most, principal = max(((size, name) for name, size in sizes.items()), default=(0, ""))
        if most < sizes.get(asking, 0) + 2:
            return None
        return self.later.last_of(principal) or self.batch.last_of(principal)
