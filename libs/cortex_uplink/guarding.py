"""What a client may not do to a daemon: ask in two ways at once, dawdle, or come in crowds.

1. A head is what RFC 9112 says, to the byte: a server that reads it more kindly than the proxy in
   front of it can be made to see a request that the proxy never saw.
2. A head is there within `HEAD_SECS` of its first byte. A body takes `BODY_SECS` and the time its
   bytes need at `BODY_BYTES_A_SEC`, and is never silent for `BODY_SILENCE_SECS`.
3. What is left of a body that was refused is read for `DISCARD_SECS` at most.
4. A client that takes nothing of its answer for `STALL_SECS` is gone: it holds a seat somewhere.
5. There are so many connections that descriptors remain for the other side.
"""

import asyncio
import re
import resource
from asyncio.transports import BaseTransport
from contextlib import suppress
from functools import cache
from typing import NoReturn, cast

from sanic.exceptions import BadRequest
from sanic.http import Http, Stage
from sanic.server import HttpProtocol

HEAD_SECS = 20.0
BODY_SECS = 20.0
BODY_BYTES_A_SEC = 1024
BODY_SILENCE_SECS = 60.0
DISCARD_SECS = 20.0
STALL_SECS = 120.0
_DESCRIPTORS = 65536

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_HEAD = re.compile(rb"[^\r\n\0]++(?:\r\n" + _TOKEN + rb":[^\r\n\0]*+)*+")
_CHUNK_SIZE = re.compile(rb"\r\n[0-9A-Fa-f]{1,15}(?:[ \t]*;[^\r\n\0]*)?")


class GuardedHttp(Http):
    """Sanic's parser with rules 1 to 3."""

    __slots__ = ("_body_until", "_discard_until")

    def init_for_request(self) -> None:
        """Forget the last request."""
        super().init_for_request()  # type: ignore[no-untyped-call]
        self._body_until: float | None = None
        self._discard_until: float | None = None

    async def http1_request_header(self) -> None:
        """Read a head. Raises BadRequest."""
        if b"\r\n\r\n" in self.recv_buffer:
            await super().http1_request_header()  # type: ignore[no-untyped-call]
        else:
            try:
                async with asyncio.timeout(HEAD_SECS):
                    await super().http1_request_header()  # type: ignore[no-untyped-call]
            except TimeoutError:
                self._refuse("the request's head did not come in time")
        if not _HEAD.fullmatch(self.request.head):
            self.request_body = None
            self._refuse("the request's head is malformed")

    async def read(self) -> bytes | None:
        """Return the next part of a body, None at its end. Raises BadRequest, PayloadTooLarge."""
        kind: object = self.request_body
        if kind is True and len(self.recv_buffer) >= (self.request_bytes_left or 0):
            return await super().read()
        try:
            async with asyncio.timeout_at(self._read_until()):
                if kind == "chunked" and not self.request_bytes_left:
                    await self._check_chunk_size()
                return await super().read()
        except TimeoutError:
            self._refuse("the request's body did not come in time")

    def _read_until(self) -> float:
        now = asyncio.get_running_loop().time()
        if self.stage is Stage.IDLE:  # answered already
            self._discard_until = self._discard_until or now + DISCARD_SECS
            return self._discard_until
        self._body_until = self._body_until or now + BODY_SECS
        came = (self.request_bytes or 0) - (self.request_bytes_left or 0)
        return min(now + BODY_SILENCE_SECS, self._body_until + came / BODY_BYTES_A_SEC)

    async def _check_chunk_size(self) -> None:
        """Have the next chunk's size wait in the buffer, and nothing else that a size could be."""
        buffer = self.recv_buffer
        while (end := buffer.find(b"\r\n", 3)) < 0 and len(buffer) <= 64:  # noqa: PLR2004  # as Sanic
            await self._receive_more()
        if end >= 0 and not _CHUNK_SIZE.fullmatch(buffer, 0, end):
            self._refuse("the request's body is malformed")

    def _refuse(self, why: str) -> NoReturn:
        self.keep_alive = False
        raise BadRequest(why)


class GuardedProtocol(HttpProtocol):
    """Sanic's connection with all five rules."""

    HTTP_CLASS = GuardedHttp
    _stalled: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """Give the client a while to take what there is."""
        super().pause_writing()  # type: ignore[no-untyped-call]
        if self.transport is not None and self._stalled is None:
            self._stalled = self.loop.call_later(STALL_SECS, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()  # type: ignore[no-untyped-call]
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def connection_made(self, transport: BaseTransport) -> None:
        """Take a connection, unless there are too many."""
        if len(self.connections) >= most_connections():
            cast("asyncio.Transport", transport).abort()
            return
        super().connection_made(transport)  # type: ignore[no-untyped-call]


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as it may have; a shell's default is for people."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@cache
def most_connections() -> int:
    """Return how many connections one listener takes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft) * 3 // 4
