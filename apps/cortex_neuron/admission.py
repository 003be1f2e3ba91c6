"""Seats of one model: so many requests at once, so many waiting, nobody for ever.

Who is next, and who makes room in a full queue, is `cortex_router.FairQueue`'s decision: principals
take turns. A seat is taken before the answer opens, so a refusal is a clean status. A waiter that
is cancelled leaves no trace.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cortex_core.errors import ApiError, QueueFull
from cortex_router import Admitted, FairQueue, Outcome, Queued, Refused, Ticket

#: The one lane of the queue: each model has an admission of its own.
_LANE = "here"


class Admission:
    """The seats of one model; `changed` is called whenever a count does."""

    def __init__(
        self,
        *,
        max_in_flight: int,
        max_queue_depth: int,
        max_wait_secs: float,
        changed: Callable[[], None],
    ) -> None:
        self.max_in_flight = max_in_flight
        self.max_queue_depth = max_queue_depth
        self.closed: ApiError | None = None
        self.rejected = 0
        self._max_wait_secs = max_wait_secs
        self._queue = FairQueue(max_waiting=max_queue_depth)
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[ApiError | None]] = {}
        self._expiring = False
        self._changed = changed
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._queue.open(_LANE, max_in_flight, _now())

    @property
    def in_flight(self) -> int:
        """How many have a seat."""
        return self._queue.in_flight(_LANE)

    @property
    def queue_depth(self) -> int:
        """How many wait for a seat."""
        return len(self._waiting)

    def serve(self, seats: int, pages: int | None = None) -> None:
        """Give out so many seats, and pages, where requests share them, from now on."""
        self.max_in_flight = seats
        self._carry_out(self._queue.open(_LANE, seats, _now(), pages=pages))

    @asynccontextmanager
    async def seat(self, principal: str = "", pages: int = 0) -> AsyncIterator[None]:
        """Hold a seat for as long as the block lasts. Raises QueueFull, or why we closed."""
        name = await self._take(principal, pages)
        try:
            yield
        except BaseException:
            self._carry_out(self._queue.cancel(name, _now()))
            raise
        else:
            self._carry_out(self._queue.end(name, _now()))

    def close(self, why: ApiError) -> None:
        """Refuse newcomers and wake everybody who waits with `why`."""
        self.closed = why
        waiting = dict(self._waiting)
        self._waiting.clear()
        self._queue.shut(_LANE)
        for name, waiter in waiting.items():
            self._queue.cancel(name, _now())
            if not waiter.done():
                waiter.set_result(why)
        self._changed()

    def refuse_newcomers(self, why: ApiError) -> None:
        """Refuse newcomers with `why`; whoever waits already is still served."""
        self.closed = why
        self._changed()

    def reopen(self) -> None:
        """Take newcomers again."""
        self.closed = None
        self._changed()

    async def emptied(self) -> None:
        """Return once nobody is in flight."""
        await self._emptied.wait()

    async def _take(self, principal: str, pages: int) -> str:
        """Return the name of a ticket that has a seat."""
        if self.closed is not None:
            raise self.closed
        now = _now()
        deadline = now + self._max_wait_secs
        name = str(next(self._numbers))
        ticket = Ticket(
            id=name, model=_LANE, principal=principal, since=now, deadline=deadline, pages=pages
        )
        waiter: asyncio.Future[ApiError | None] = asyncio.get_running_loop().create_future()
        self._waiting[name] = waiter
        self._carry_out(self._queue.ask(ticket, now))
        try:
            refusal = await waiter
        except asyncio.CancelledError:
            # It may have been seated in the very moment that its client left.
            self._waiting.pop(name, None)
            self._carry_out(self._queue.cancel(name, _now()))
            raise
        if refusal is not None:
            raise refusal
        return name

    def _carry_out(self, outcomes: tuple[Outcome, ...]) -> None:
        """Tell those concerned what the queue decided, and be there when the next wait is over."""
        for one in outcomes:
            match one:
                case Admitted(ticket):
                    self._settle(ticket, None)
                case Refused(ticket):
                    self.rejected += 1
                    self._settle(ticket, self._refusal(one))
                case Queued():
                    pass
        if self._queue.in_flight(_LANE):
            self._emptied.clear()
        else:
            self._emptied.set()
        if self._waiting and not self._expiring:
            self._expire_later()
        self._changed()

    def _settle(self, ticket: Ticket, refusal: ApiError | None) -> None:
        waiter = self._waiting.pop(ticket.id)
        if not waiter.done():
            waiter.set_result(refusal)

    def _refusal(self, refused: Refused) -> ApiError:
        message = (
            f"{self.queue_depth} requests wait for this model already"
            if refused.code == "queue_full"
            else f"no seat became free within {self._max_wait_secs:g} s"
        )
        return QueueFull(message, retry_after_secs=refused.retry_after_secs)

    def _expire_later(self) -> None:
        """Look when the first wait is over; nobody who comes later may wait less long."""
        if (due := self._queue.next_deadline()) is not None:
            self._expiring = True
            asyncio.get_running_loop().call_later(max(0.0, due - _now()), self._expire)

    def _expire(self) -> None:
        self._expiring = False
        self._carry_out(self._queue.expire(_now()))


def _now() -> float:
    """Return a reading of the clock that waits are measured with; a wall clock may jump."""
    return time.monotonic()
