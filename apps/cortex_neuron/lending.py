"""Processes that are started when somebody needs them, shared, and ended when nobody did for long.

There are so many of them at most. Whoever needs another one takes the place of one that is idle,
or waits until one is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

_STOP_SECS = 2.0


class Process(Protocol):
    """What can be lent."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""

    async def stop(self, timeout_secs: float) -> None:
        """End it, by force after `timeout_secs`."""


_Lent = TypeVar("_Lent", bound=Process)


class Lost(Exception):
    """A borrowed process went away while it was used: it may be tried once more with a new one."""


@dataclass(slots=True)
class _Loan(Generic[_Lent]):
    """One process. `users` hold it; without any it may go."""

    start: asyncio.Task[_Lent]
    users: int = 0
    expiry: asyncio.TimerHandle | None = None

    @property
    def usable(self) -> bool:
        """Whether it runs, or may yet."""
        if not self.start.done():
            return True
        if self.start.cancelled() or self.start.exception() is not None:
            return False
        return self.start.result().alive


@dataclass(slots=True)
class Lending(Generic[_Lent]):
    """The processes of one kind, by the path of what they were started for."""

    limit: int = 2
    idle_secs: float = 60.0
    _open: dict[Path, _Loan[_Lent]] = field(default_factory=dict)
    _leaving: set[asyncio.Task[None]] = field(default_factory=set)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that run now."""
        tasks = [loan.start for loan in self._open.values()]
        return tuple(
            t.result().pid for t in tasks if t.done() and not t.cancelled() and not t.exception()
        )

    @asynccontextmanager
    async def borrowed(
        self, path: Path, start: Callable[[], Coroutine[Any, Any, _Lent]]
    ) -> AsyncIterator[_Lent]:
        """Hold the process for `path`, started by `start` where there is none.

        A block that raises Lost has it ended. Raises what starting raises.
        """
        loan = await self._claim(path, start)
        try:
            yield await asyncio.shield(loan.start)
        except Lost:
            if self._open.get(path) is loan:
                self._dismiss(path)
            raise
        finally:
            await self._release(path, loan)

    async def aclose(self) -> None:
        """Stop every process."""
        for path in list(self._open):
            self._dismiss(path)
        await asyncio.gather(*self._leaving)

    async def _claim(
        self, path: Path, start: Callable[[], Coroutine[Any, Any, _Lent]]
    ) -> _Loan[_Lent]:
        async with self._changed:
            while True:
                found = self._open.get(path)
                if found is not None and found.usable:
                    break
                if found is not None:
                    self._dismiss(path)
                idle = [other for other, loan in self._open.items() if loan.users == 0]
                if len(self._open) < self.limit or idle:
                    if len(self._open) >= self.limit:
                        self._dismiss(idle[0])
                    found = self._open[path] = _Loan(asyncio.create_task(start()))
                    break
                await self._changed.wait()
            found.users += 1
            if found.expiry is not None:
                found.expiry.cancel()
            self._open[path] = self._open.pop(path)  # The least recently used one stays first.
            return found

    async def _release(self, path: Path, loan: _Loan[_Lent]) -> None:
        loan.users -= 1
        if loan.users == 0 and self._open.get(path) is loan:
            if not loan.usable:
                self._dismiss(path)
            else:
                loop = asyncio.get_running_loop()
                loan.expiry = loop.call_later(self.idle_secs, self._dismiss, path)
        async with self._changed:
            self._changed.notify_all()

    def _dismiss(self, path: Path) -> None:
        loan = self._open.pop(path)
        if loan.expiry is not None:
            loan.expiry.cancel()
        task = asyncio.create_task(_end(loan.start))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _end(start: asyncio.Task[_Lent]) -> None:
    start.cancel()
    done, _ = await asyncio.wait([start])
    if not start.cancelled() and start.exception() is None:
        await done.pop().result().stop(_STOP_SECS)
