"""Connections of clients, answered as a test tells them."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from cortex_core.errors import ApiError
from cortex_uplink.client_connection import ClientConnection
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.client_writer import ClientWriter
from cortex_uplink.request_parser import Head

#: What is done with one request.
Handle = Callable[[ClientRequest, ClientWriter], Awaitable[None]]

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
SOON_SECS = 5.0


class Front:
    """An answerer, its connections, and the requests it was given."""

    max_body_bytes = 1 << 20

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.connections: set[ClientConnection] = set()
        self.taken: list[ClientRequest] = []
        self.port = 0

    async def answer(self, request: ClientRequest) -> None:
        """Answer as the test says."""
        self.taken.append(request)
        await self._handle(request, ClientWriter(request))

    def preview(self, head: Head) -> None:
        """Refuse nobody."""

    def refuse(self, request: ClientRequest, error: ApiError) -> None:
        """Answer with the error's words."""
        ClientWriter(request).whole(error.status, {}, str(error).encode())

    @property
    def connection(self) -> ClientConnection:
        """The only one."""
        (one,) = self.connections
        return one


@asynccontextmanager
async def front(
    handle: Handle, *, tls: ssl.SSLContext | None = None, socket_path: Path | None = None
) -> AsyncIterator[Front]:
    """Serve until the end of the block; then no connection and no task may be left."""
    before = asyncio.all_tasks()
    made = Front(handle)
    loop = asyncio.get_running_loop()

    def connection() -> ClientConnection:
        return ClientConnection(made, made.connections)

    if socket_path is not None:
        server = await loop.create_unix_server(connection, str(socket_path))
    else:
        server = await loop.create_server(connection, "127.0.0.1", 0, ssl=tls)
        made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        for one in list(made.connections):
            one.abort()
        server.close()
        await server.wait_closed()
        async with asyncio.timeout(SOON_SECS):
            while made.connections or asyncio.all_tasks() - before:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send pieces, each by itself, and return all that comes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.005)
    try:
        async with asyncio.timeout(SOON_SECS):
            return await reader.read()
    finally:
        writer.close()


async def echo(request: ClientRequest, writer: ClientWriter) -> None:
    """Answer with target and body."""
    writer.whole(200, {}, request.target.encode() + b" " + request.body)
