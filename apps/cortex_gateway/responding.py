"""The client's side of a streamed answer: opened late, kept alive, ended properly.

Until `hold_secs` have passed a failure is still a clean status. Then the response opens and a
sign of life goes out in every second of silence, so that nobody takes a cold load or a long
prefill for a dead server. Once open, a failure is an error event of the client's dialect and then
the end: never a silent or a false normal one.
"""

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager

from sanic import HTTPResponse, Request

from cortex_core.errors import ApiError, failure
from cortex_dialects import AnswerStream
from cortex_uplink.client_writer import ClientWriter
from cortex_uplink.serving import error_answer, name_headers

KEEP_ALIVE_SECS = 1.0
_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class EventResponse:
    """One server-sent answer to one client. `stream` knows what its dialect says when."""

    def __init__(self, request: Request, stream: AnswerStream, hold_secs: float) -> None:
        self._request = request
        self._stream = stream
        self._hold_secs = hold_secs
        self._writer = ClientWriter(request)
        self._loop = asyncio.get_running_loop()
        self._last_sent = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def opened(self) -> bool:
        """Headers are out; no status can be chosen any more."""
        return self._writer.opened

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Keep the client company for as long as the block lasts."""
        self._timer = self._loop.call_later(self._hold_secs, self._keep_alive)
        try:
            yield
        finally:
            self._timer.cancel()

    def write(self, data: bytes) -> None:
        """Send bytes of the stream, opening it first where need be."""
        self._open()
        self._last_sent = self._loop.time()
        self._writer.write(data)

    def enough(self) -> Awaitable[object] | None:
        """Return what to wait for before more is written; None when the client takes more."""
        return self._writer.enough()

    async def fail(self, error: ApiError) -> HTTPResponse | None:
        """Tell the client of `error`: as a response while that is possible, else as an event."""
        if not self.opened:
            return error_answer(self._request, error)
        self._writer.write(self._stream.fail(failure(error)))
        await self._end()
        return None

    async def end(self) -> None:
        """End the stream."""
        self._open()
        await self._end()

    async def _end(self) -> None:
        self._writer.end()
        if (taking := self._writer.enough()) is not None:
            await taking

    def _open(self) -> None:
        if not self._writer.opened:
            self._writer.open({**_HEADERS, **name_headers(self._request)})

    def _keep_alive(self) -> None:
        silent = self._loop.time() - self._last_sent
        if silent >= KEEP_ALIVE_SECS or not self.opened:
            self._open()
            # Who has not even taken what there is needs no sign of life.
            if not self._writer.crowded:
                self.write(self._stream.open() + self._stream.keep_alive)
            silent = 0.0
        self._timer = self._loop.call_later(KEEP_ALIVE_SECS - silent, self._keep_alive)
