"""Seats of one model: so many requests at once, so many waiting, nobody for ever.

A seat is taken before the answer opens, so a refusal is a clean status. Seats go in order of
arrival. A waiter that is cancelled leaves no trace.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from cortex_core.errors import ApiError, QueueFull


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
        self.in_flight = 0
        self.rejected = 0
        self._max_wait_secs = max_wait_secs
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._changed = changed
        self._closed: ApiError | None = None
        self._emptied = asyncio.Event()
        self._emptied.set()

    @property
    def queue_depth(self) -> int:
        """How many wait for a seat."""
        return len(self._waiting)

    @asynccontextmanager
    async def seat(self) -> AsyncIterator[None]:
        """Hold a seat for as long as the block lasts. Raises QueueFull, or why we closed."""
        await self._take()
        try:
            yield
        finally:
            self._give_back()

    def close(self, why: ApiError) -> None:
        """Refuse newcomers and wake everybody who waits with `why`."""
        self._closed = why
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(why)
        self._changed()

    def refuse_newcomers(self, why: ApiError) -> None:
        """Refuse newcomers with `why`; whoever waits already is still served."""
        self._closed = why
        self._changed()

    def reopen(self) -> None:
        """Take newcomers again."""
        self._closed = None
        self._changed()

    async def emptied(self) -> None:
        """Return once nobody is in flight."""
        await self._emptied.wait()

    async def _take(self) -> None:
        if self._closed is not None:
            raise self._closed
        if self.in_flight < self.max_in_flight and not self._waiting:
            self._seated()
            return
        if len(self._waiting) >= self.max_queue_depth:
            self.rejected += 1
            raise QueueFull(
                f"{len(self._waiting)} requests wait for this model already",
                retry_after_secs=min(120, 2 * (len(self._waiting) + 1)),
            )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._changed()
        try:
            async with asyncio.timeout(self._max_wait_secs):
                await waiter
        except TimeoutError:
            self._abandon(waiter)
            self.rejected += 1
            raise QueueFull(
                f"no seat became free within {self._max_wait_secs:g} s", retry_after_secs=10
            ) from None
        except asyncio.CancelledError:
            self._abandon(waiter)
            raise

    def _abandon(self, waiter: asyncio.Future[None]) -> None:
        """Take a waiter out; one that was just given a seat passes it on."""
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            self._changed()
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self._give_back()

    def _seated(self) -> None:
        self.in_flight += 1
        self._emptied.clear()
        self._changed()

    def _give_back(self) -> None:
        self.in_flight -= 1
        while self._waiting and self.in_flight < self.max_in_flight:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self.in_flight += 1
                waiter.set_result(None)
        if self.in_flight == 0:
            self._emptied.set()
        self._changed()
