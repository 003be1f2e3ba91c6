"""Who gets a seat of a model next: bounded, fair between principals, nobody for ever.

A `FairQueue` holds everybody who is served or waits on one node, a lane for each model. It does no
I/O and reads no clock: whoever owns it tells it what happens and carries out what it returns. It is
changed in place, as its one owner never looks back: a copy for every request would cost as much as
the queue is long and nobody would read it.

1. A lane has seats while its model serves, none before. Who finds no seat waits.
2. Principals that wait take turns; within one, first come, first served. One that has
   `max_per_principal` in flight lets the others go first; a seat that only it wants is its own.
3. A lane is full at `max_waiting`. Then whoever has the most waiting makes room: a newcomer with
   two fewer takes the place of that one's last; else it is refused itself.
4. A lane that closes serves out who waits already. Newcomers wait until it opens again.
5. Who waits past its deadline is refused. A cancelled ticket leaves no trace.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil
from typing import Literal, TypeAlias

#: How long a request is thought to take until one has ended, and how fast that is learnt.
FIRST_GUESS_SECS = 10.0
LEARNING_RATE = 0.1
LONGEST_RETRY_SECS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One request. `since` is when it came, `deadline` until when it may wait (Unix seconds)."""

    id: str
    model: str
    principal: str
    since: float
    deadline: float | None = None


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

    def __init__(self, *, max_waiting: int, max_per_principal: int) -> None:
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
        free = lane.open and lane.in_flight < lane.seats and not lane.batch.count
        if not free and lane.count >= self._max_waiting:
            last = lane.last_of_the_greediest(ticket.principal)
            if last is None:
                return (self._refused(ticket, "queue_full"),)
            self._drop(last)
            outcomes.append(self._refused(last, "queue_full"))
        self._tickets[ticket.id] = ticket
        line = lane.newcomers
        line.append(ticket)
        if ticket.deadline is not None:
            heappush(self._deadlines, (ticket.deadline, ticket.id))
        seated = self._seat(lane, now)
        if not seated:
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
        lane.leave(ticket.principal)
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
        """Refuse everybody whose deadline has passed while it waited."""
        outcomes: list[Outcome] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            ticket = self._late(*heappop(self._deadlines))
            if ticket is not None:
                self._drop(ticket)
                outcomes.append(self._refused(ticket, "deadline"))
        return tuple(outcomes)

    def open(self, model: str, seats: int, now: float) -> tuple[Outcome, ...]:
        """Give a model's lane so many seats: it serves now."""
        lane = self._lanes.setdefault(model, _Lane())
        lane.seats, lane.open = seats, True
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

    def _late(self, deadline: float, ticket_id: str) -> Ticket | None:
        """Return the ticket that this deadline is still about: it waits, and its id is not new."""
        ticket = self._tickets.get(ticket_id)
        if ticket is None or ticket.deadline != deadline or ticket_id in self._seated_at:
            return None
        return ticket

    def _seat(self, lane: "_Lane", now: float) -> tuple[Outcome, ...]:
        outcomes: list[Outcome] = []
        while lane.in_flight < lane.seats and lane.batch.count:
            ticket = lane.batch.pop(lane.by_principal, self._max_per_principal)
            lane.enter(ticket.principal)
            self._seated_at[ticket.id] = now
            outcomes.append(Admitted(ticket))
        return tuple(outcomes)

    def _drop(self, ticket: Ticket) -> None:
        del self._tickets[ticket.id]
        lane = self._lanes[ticket.model]
        if self._seated_at.pop(ticket.id, None) is not None:
            lane.leave(ticket.principal)
        else:
            lane.discard(ticket)

    def _refused(self, ticket: Ticket, code: Literal["queue_full", "deadline"]) -> Refused:
        return Refused(ticket, code, self._lanes[ticket.model].retry_after_secs())


class _Line:
    """Those who wait, a queue for each principal, the principals in the order of their turns."""

    def __init__(self) -> None:
        self.count = 0
        self._queues: OrderedDict[str, OrderedDict[str, Ticket]] = OrderedDict()

    def append(self, ticket: Ticket) -> None:
        self._queues.setdefault(ticket.principal, OrderedDict())[ticket.id] = ticket
        self.count += 1

    def take_over(self, other: "_Line") -> None:
        """Put everybody of `other` behind those who are here."""
        for ticket in other.empty():
            self.append(ticket)

    def empty(self) -> list[Ticket]:
        """Take out everybody."""
        everybody = [ticket for queue in self._queues.values() for ticket in queue.values()]
        self._queues.clear()
        self.count = 0
        return everybody

    def pop(self, in_flight: dict[str, int], max_per_principal: int) -> Ticket:
        """Take out whoever's turn it is; its principal's next turn comes last."""
        principal = next(
            (name for name in self._queues if in_flight.get(name, 0) < max_per_principal),
            next(iter(self._queues)),
        )
        queue = self._queues[principal]
        _, ticket = queue.popitem(last=False)
        self.count -= 1
        if queue:
            self._queues.move_to_end(principal)
        else:
            del self._queues[principal]
        return ticket

    def discard(self, ticket: Ticket) -> bool:
        queue = self._queues.get(ticket.principal)
        if queue is None or queue.pop(ticket.id, None) is None:
            return False
        self.count -= 1
        if not queue:
            del self._queues[ticket.principal]
        return True

    def position(self, last: Ticket) -> int:
        """Return when the last one of its principal has its turn, 1 for next, limits aside."""
        rounds = len(self._queues[last.principal])
        ahead, passed = 0, False
        for principal, queue in self._queues.items():
            passed = passed or principal == last.principal
            ahead += min(len(queue), rounds - 1 if passed else rounds)
        return ahead + 1

    def oldest_since(self) -> float:
        """Return since when the oldest waits: each principal's first is its oldest."""
        return min(next(iter(queue.values())).since for queue in self._queues.values())

    def sizes(self) -> Iterator[tuple[int, str]]:
        """Return how many each principal has waiting."""
        return ((len(queue), principal) for principal, queue in self._queues.items())

    def last_of(self, principal: str) -> Ticket | None:
        queue = self._queues.get(principal)
        return None if queue is None else next(reversed(queue.values()))


@dataclass(slots=True)
class _Lane:
    """One model: its seats, `batch` who get them next, `later` who wait for the next opening."""

    seats: int = 0
    open: bool = False
    in_flight: int = 0
    service_secs: float = FIRST_GUESS_SECS
    by_principal: dict[str, int] = field(default_factory=dict)
    batch: _Line = field(default_factory=_Line)
    later: _Line = field(default_factory=_Line)

    @property
    def count(self) -> int:
        return self.batch.count + self.later.count

    @property
    def newcomers(self) -> _Line:
        return self.batch if self.open else self.later

    def enter(self, principal: str) -> None:
        self.in_flight += 1
        self.by_principal[principal] = self.by_principal.get(principal, 0) + 1

    def leave(self, principal: str) -> None:
        self.in_flight -= 1
        self.by_principal[principal] -= 1
        if not self.by_principal[principal]:
            del self.by_principal[principal]

    def discard(self, ticket: Ticket) -> None:
        if not self.batch.discard(ticket):
            self.later.discard(ticket)

    def learn(self, took_secs: float) -> None:
        self.service_secs += LEARNING_RATE * (max(0.0, took_secs) - self.service_secs)

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
