"""The client's side of a streamed answer: opened late, kept alive, ended properly.

Until `hold_secs` have passed a failure is still a clean status. Then the response opens and a
sign of life goes out in every second of silence, so that nobody takes a cold load or a long
prefill for a dead server. Once open, a failure is an error event of the client's dialect and then
the end: never a silent or a false normal one.
"""

import asyncio
from collections.abc import Awaitable

from cortex_core.errors import ApiError, failure
from cortex_dialects import AnswerStream
from cortex_gateway.accounting import Outcome
from cortex_gateway.capturing import writer_for
from cortex_gateway.progressing import LoadProgress
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.envelopes import name_headers

KEEP_ALIVE_SECS = 1.0
_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class EventResponse:
    """One server-sent answer to one client. `stream` knows what its dialect says when."""

    def __init__(
        self, request: ClientRequest, stream: AnswerStream, outcome: Outcome, hold_secs: float
    ) -> None:
        self._request = request
        self._stream = stream
        self._outcome = outcome
        self._hold_secs = hold_secs
        self.writer = writer_for(request, outcome)
        #: What the client wants to hear while it waits for its model.
        self.progress: LoadProgress | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def opened(self) -> bool:
        """Headers are out; no status can be chosen any more."""
        return self.writer.opened

    def keep_alive(self) -> None:
        """Keep the client company until `stop`."""
        self._timer = self._loop.call_later(self._hold_secs, self._keep_alive)

    def stop(self) -> None:
        """Leave the client alone from now on."""
        if self._timer is not None:
            self._timer.cancel()

    def write(self, data: bytes) -> Awaitable[object] | None:
        """Send bytes of the stream, opening it first where need be.

        Returns what to wait for before more is written; None when the client takes more.
        """
        if not self.writer.opened:
            self._open()
        return self.writer.write(data)

    async def fail(self, error: ApiError) -> None:
        """End an open stream in an error event."""
        self.writer.write(self._stream.fail(failure(error)))
        await self._end()

    async def end(self) -> None:
        """End the stream."""
        self._open()
        await self._end()

    async def _end(self) -> None:
        self.stop()  # a sign of life behind the end would be read as the next answer
        self.writer.end()
        if (taking := self.writer.enough()) is not None:
            await taking

    def _open(self) -> None:
        if not self.writer.opened:
            said = {**name_headers(self._request), **self._outcome.headers()}
            self.writer.open({**_HEADERS, **said})

    def _keep_alive(self) -> None:
        writer = self.writer
        # Who has not even taken what there is needs no sign of life.
        if not self.opened or (writer.silent and not writer.crowded):
            opening = self._stream.open()
            news = self.progress.news() if self.progress is not None else b""
            self.write(opening + (news or self._stream.keep_alive))
        writer.silent = True
        self._timer = self._loop.call_later(KEEP_ALIVE_SECS, self._keep_alive)
