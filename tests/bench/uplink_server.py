"""A server that does as little as one can: canned answers, small or in chunks, on one port.

    python -m tests.bench.uplink_server

It prints its port and serves until its standard input ends.
"""

import asyncio
import sys
from typing import cast

import uvloop

CHUNKS = 64
PACE_SECS = 0.02
_BODY = b'{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"content":"hi"}}]}'
_FRAME = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"token"}}]}\n\n'
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_EVENTS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Canned(asyncio.Protocol):
    """One client's connection; its requests are small and come in one piece."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer by the path that was asked for."""
        if data.startswith(b"POST /stream"):
            self._transport.write(_EVENTS)
            asyncio.get_running_loop().call_soon(self._next, CHUNKS)
        elif data.startswith(b"POST /paced"):
            self._transport.write(_EVENTS)
            asyncio.get_running_loop().call_later(PACE_SECS, self._next, CHUNKS, PACE_SECS)
        else:
            self._transport.write(_JSON % (len(_BODY), _BODY))

    def _next(self, left: int, pace_secs: float = 0.0) -> None:
        """Write one chunk in a turn of the loop, so that each goes out by itself."""
        if not left:
            self._transport.write(b"0\r\n\r\n")
        elif not self._transport.is_closing():
            self._transport.write(b"%x\r\n%b\r\n" % (len(_FRAME), _FRAME))
            asyncio.get_running_loop().call_later(pace_secs, self._next, left - 1, pace_secs)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Canned, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve())
