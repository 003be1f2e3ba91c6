"""Sending a request's body no faster than it is taken, and no further than it is wanted."""

import asyncio
from collections.abc import AsyncIterator

from cortex_uplink.errors import RequestRefused
from cortex_uplink.write_batch import write_batch

#: So much is handed to the kernel at a time, so that an answer which comes before the request's
#: end is seen before the rest is sent in vain.
_SEND_BYTES = 64 * 1024


class Sender:
    """The sending side of one connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._batch = write_batch()
        self._can_write = True
        self._unsent: memoryview | None = None
        self._streaming = False
        self._waiter: asyncio.Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Part of the request is not out yet."""
        return (
            self._streaming
            or self._unsent is not None
            or self._transport.get_write_buffer_size() > 0
        )

    def send(self, head: bytes, body: bytes | None) -> None:
        """Send a request; without a body, that will come by `stream`."""
        self._streaming = body is None
        if body is None or len(body) <= _SEND_BYTES:
            self._batch.put(self._transport.write, head + body if body else head)
        else:
            self._batch.flush()
            self._transport.write(head)
            self._unsent = memoryview(body)
            self._send_more()

    async def stream(self, parts: AsyncIterator[bytes], length: int | None) -> None:
        """Send a body of `length` bytes; None: in chunks. Ends early once stopped.

        Raises RequestRefused when it has another length, and whatever `parts` raises.
        """
        left = length
        async for part in parts:
            if not self._streaming:
                return
            if left is not None:
                left -= len(part)
                if left < 0:
                    raise RequestRefused(f"a body of more than the {length} bytes announced")
            if part:
                self._transport.write(b"%x\r\n%b\r\n" % (len(part), part) if left is None else part)
                await self._taken()
        if left:
            raise RequestRefused(f"a body {left} bytes short of the {length} announced")
        if left is None and self._streaming:
            self._transport.write(b"0\r\n\r\n")
        self._streaming = False

    def stop(self) -> None:
        """Send nothing more of the body."""
        self._unsent, self._streaming = None, False
        self._wake()

    def pause(self) -> None:
        """Wait: the other side takes nothing for now."""
        self._can_write = False

    def resume(self) -> None:
        """Send on."""
        self._can_write = True
        self._send_more()
        self._wake()

    def _send_more(self) -> None:
        while self._unsent is not None and self._can_write:
            part, rest = self._unsent[:_SEND_BYTES], self._unsent[_SEND_BYTES:]
            self._unsent = rest if len(rest) else None
            self._transport.write(part)

    async def _taken(self) -> None:
        while self._streaming and not self._can_write:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
