"""Servers that do as a test tells them, to the byte."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from cortex_uplink import Limits, Uplink

#: What a server does with one connection.
Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LIMITS = Limits(connect=1, first_byte=0.3, idle=0.3)
#: For tests in which no limit is to be reached.
PATIENT = Limits(connect=5, first_byte=20, idle=20)
CERTIFICATE = Path(__file__).parent / "tls" / "localhost.pem"
SOON_SECS = 5.0


@dataclass(slots=True)
class Peer:
    """A server: its URL, and how many connections it was given and has now."""

    url: str = ""
    made: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)


@asynccontextmanager
async def peer(
    play: Play, *, tls: ssl.SSLContext | None = None, socket_path: Path | None = None
) -> AsyncIterator[Peer]:
    """Serve until the end of the block."""
    told = Peer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.made += 1
        told.writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await play(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            told.writers.discard(writer)
            tasks.discard(task)
            writer.close()

    if socket_path is not None:
        server = await asyncio.start_unix_server(serve, socket_path)
        told.url = f"http+unix://{quote(str(socket_path), safe='')}/x"
    else:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        port = server.sockets[0].getsockname()[1]
        told.url = f"https://localhost:{port}/x" if tls else f"http://127.0.0.1:{port}/x"
    try:
        yield told
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        while tasks:
            await asyncio.wait(tasks)
        await server.wait_closed()


@asynccontextmanager
async def uplink(
    limits: Limits = LIMITS, *, keep_alive: bool = True, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Uplink]:
    """An uplink that is closed afterwards, with nothing left open."""
    made = Uplink(limits, keep_alive=keep_alive, tls=tls)
    try:
        yield made
    finally:
        async with asyncio.timeout(SOON_SECS):
            await made.aclose()
    assert made.open_connections == 0


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the head and the body of a request, whichever way its length is told."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"transfer-encoding: chunked" in head:
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return head, body
    _, found, rest = head.partition(b"content-length: ")
    return head, await reader.readexactly(int(rest.split(b"\r\n")[0])) if found else b""


def answers(*each: bytes) -> Play:
    """Answer the requests of every connection with the given bytes, in turn, and then hang up."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in each:
            await read_request(reader)
            await send(writer, answer)

    return play


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Take everything and say nothing."""
    while await reader.read(1 << 16):
        pass


async def send(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    """Send raw bytes."""
    for part in parts:
        writer.write(part)
        await writer.drain()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an end."""
    # Not to linger at all is how a socket is told to.
    option = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
    writer.transport.abort()


async def until(true: Callable[[], bool]) -> None:
    """Return once something holds; a test fails when that takes long."""
    async with asyncio.timeout(SOON_SECS):
        while not true():  # noqa: ASYNC110  # what is waited for tells nobody
            await asyncio.sleep(0.005)


async def ask(path: Uplink, url: str, body: bytes = b"{}", method: str = "POST") -> bytes:
    """Return the body of the answer to one request."""
    async with path.open(url, body=body, headers={}, method=method) as reply:
        return await reply.read(1 << 24)


@asynccontextmanager
async def no_new_tasks() -> AsyncIterator[None]:
    """Fail when a task outlives the block that was not there before."""
    before = asyncio.all_tasks()
    yield
    with suppress(TimeoutError):
        await until(lambda: asyncio.all_tasks() <= before)
    assert asyncio.all_tasks() <= before
