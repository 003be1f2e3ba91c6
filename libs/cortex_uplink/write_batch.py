"""What is written in one turn of the event loop goes out together, at the turn's end.

A write wakes whoever reads at the other end. Under load many connections are written to in one
turn; without anything in between they wake their readers once, and the processor stays with one
thing. Where there is nothing else to do the turn ends at once: a lone token is not delayed.
"""

import asyncio
from collections.abc import Callable

#: With more than this a turn's writes go out before its end, and who is full is known.
MAX_HELD_BYTES = 128 * 1024


class WriteBatch:
    """The writes of one event loop. Order is kept, of every transport and among them.

    What is written to a transport that is gone by then is lost, and nothing else with it.
    """

    __slots__ = ("_call_soon", "_held", "_pending")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._call_soon = loop.call_soon
        self._held = 0
        self._pending: list[tuple[Callable[[bytes], object], bytes]] = []

    def put(self, write: Callable[[bytes], object], data: bytes) -> None:
        """Have `write`, a transport's, called with `data`."""
        pending = self._pending
        if not pending:
            self._call_soon(self.flush)
        pending.append((write, data))
        self._held += len(data)
        if self._held > MAX_HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write everything now: before a transport is closed, or written to by itself."""
        pending, self._pending, self._held = self._pending, [], 0
        for write, data in pending:
            try:
                write(data)
            except (RuntimeError, OSError):  # uvloop's way of saying that it is closed
                continue


_batches: dict[asyncio.AbstractEventLoop, WriteBatch] = {}


def write_batch() -> WriteBatch:
    """Return the batch of the running event loop."""
    loop = asyncio.get_running_loop()
    if (known := _batches.get(loop)) is None:
        for ended in [one for one in list(_batches) if one.is_closed()]:
            del _batches[ended]
        known = _batches[loop] = WriteBatch(loop)
    return known
