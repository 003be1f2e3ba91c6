"""The client's side of a streamed answer: opened late, kept alive, ended properly.

Until `hold_secs` have passed a failure is still a clean status. Then the response opens and a
sign of life goes out in every second of silence, so that nobody takes a cold load or a long
prefill for a dead server. Once open, a failure is an error event of the client's dialect and then
the end: never a silent or a false normal one.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sanic import HTTPResponse, Request

from cortex_core.errors import ApiError, failure
from cortex_dialects import AnswerStream
from cortex_uplink.serving import error_answer

KEEP_ALIVE_SECS = 1.0


class EventResponse:
    """One server-sent answer to one client. `stream` knows what its dialect says when."""

    def __init__(self, request: Request, stream: AnswerStream, hold_secs: float) -> None:
        self._request = request
        self._stream = stream
        self._hold_secs = hold_secs
        self._response: HTTPResponse | None = None
        self._opening = asyncio.Lock()
        self._last_sent = asyncio.get_running_loop().time()

    @property
    def opened(self) -> bool:
        """Headers are out; no status can be chosen any more."""
        return self._response is not None

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Keep the client company for as long as the block lasts."""
        company = asyncio.create_task(self._keep_alive())
        try:
            yield
        finally:
            company.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await company

    async def send(self, data: bytes) -> None:
        """Send bytes of the stream, opening it first where need be."""
        response = await self._open()
        self._last_sent = asyncio.get_running_loop().time()
        await response.send(data)

    async def fail(self, error: ApiError) -> HTTPResponse | None:
        """Tell the client of `error`: as a response while that is possible, else as an event."""
        if self._response is None:
            return error_answer(self._request, error)
        if event := self._stream.fail(failure(error)):
            await self._response.send(event)
        await self._response.eof()  # type: ignore[no-untyped-call]
        return None

    async def end(self) -> None:
        """End the stream."""
        response = await self._open()
        await response.eof()  # type: ignore[no-untyped-call]

    async def _open(self) -> HTTPResponse:
        async with self._opening:
            if self._response is None:
                self._response = await self._request.respond(
                    status=200,
                    content_type="text/event-stream; charset=utf-8",
                    headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
                )
            return self._response

    async def _keep_alive(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._hold_secs - (loop.time() - self._last_sent)))
        while True:
            silent = loop.time() - self._last_sent
            if silent >= KEEP_ALIVE_SECS or not self.opened:
                await self.send(self._stream.open() + self._stream.keep_alive)
                silent = 0.0
            await asyncio.sleep(KEEP_ALIVE_SECS - silent)
