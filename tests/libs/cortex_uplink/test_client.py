"""The path that bytes take: as they come, with limits, and never longer than they are wanted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from cortex_uplink import (
    ConnectFailed,
    ConnectionLost,
    FirstByteTimeout,
    IdleTimeout,
    Limits,
    Uplink,
)

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LIMITS = Limits(connect=1, first_byte=0.3, idle=0.3)


@asynccontextmanager
async def peer(play: Play) -> AsyncIterator[str]:
    """A server that reads a request's head and then does as it is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await play(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    finally:
        server.close()


@asynccontextmanager
async def uplink(limits: Limits = LIMITS, *, keep_alive: bool = True) -> AsyncIterator[Uplink]:
    """An uplink that is closed afterwards."""
    made = Uplink(limits, keep_alive=keep_alive)
    try:
        yield made
    finally:
        await made.aclose()


async def send(writer: asyncio.StreamWriter, *parts: bytes) -> None:
    """Send raw bytes."""
    for part in parts:
        writer.write(part)
        await writer.drain()


async def test_chunks_come_one_by_one_as_they_were_sent() -> None:
    """The first chunk is readable while the second does not exist yet."""
    go_on = asyncio.Event()

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, HEAD, b"3\r\none\r\n")
        await go_on.wait()
        await send(writer, b"3\r\ntwo\r\n0\r\n\r\n")

    async with peer(play) as url, uplink() as path, path.open(url, body=b"{}", headers={}) as reply:
        chunks = reply.chunks()
        first = await anext(chunks)
        go_on.set()
        rest = [chunk async for chunk in chunks]

    assert (first, rest) == (b"one", [b"two"])


async def test_nobody_there_is_a_failed_connection() -> None:
    """Another replica may be asked."""
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()

    async with uplink() as path:
        with pytest.raises(ConnectFailed):
            async with path.open(f"http://127.0.0.1:{port}/", body=b"", headers={}):
                pass


async def test_a_peer_that_hangs_up_before_answering_is_a_failed_connection() -> None:
    """Nothing of an answer was received."""

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with peer(play) as url, uplink() as path:
        with pytest.raises(ConnectFailed):
            async with path.open(url, body=b"{}", headers={}):
                pass


async def test_the_first_byte_has_a_limit() -> None:
    """A peer that takes the request and says nothing."""

    async def play(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with peer(play) as url, uplink() as path:
        with pytest.raises(FirstByteTimeout):
            async with path.open(url, body=b"{}", headers={}):
                pass


async def test_silence_inside_an_answer_has_a_limit() -> None:
    """A long answer is not a failure, a silent one is."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, HEAD, b"1\r\nx\r\n")
        await reader.read()

    async with peer(play) as url, uplink() as path, path.open(url, body=b"{}", headers={}) as reply:
        chunks = reply.chunks()
        assert await anext(chunks) == b"x"
        with pytest.raises(IdleTimeout):
            await anext(chunks)


async def test_an_answer_longer_than_every_limit_passes() -> None:
    """There is no total timeout."""

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, HEAD)
        for _number in range(8):
            await asyncio.sleep(0.08)  # each pause is within the idle limit, their sum is not
            await send(writer, b"1\r\nx\r\n")
        await send(writer, b"0\r\n\r\n")

    async with peer(play) as url, uplink() as path, path.open(url, body=b"{}", headers={}) as reply:
        assert await reply.read(100) == b"x" * 8


async def test_an_answer_that_breaks_off_is_a_lost_connection() -> None:
    """Never taken for its end."""

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, HEAD, b"1\r\nx\r\n")

    async with peer(play) as url, uplink() as path, path.open(url, body=b"{}", headers={}) as reply:
        with pytest.raises(ConnectionLost):
            await reply.read(100)


async def test_an_answer_beyond_the_bound_is_refused() -> None:
    """Memory is bounded whatever a peer sends."""

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, HEAD, b"5\r\nxxxxx\r\n0\r\n\r\n")

    async with peer(play) as url, uplink() as path, path.open(url, body=b"{}", headers={}) as reply:
        with pytest.raises(ConnectionLost):
            await reply.read(4)


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_leaving_ends_the_upstream_request_at_once(keep_alive: bool) -> None:
    """This is how a client that hung up reaches the engine."""
    gone = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await send(writer, HEAD, b"1\r\nx\r\n")
        await reader.read()
        gone.set()

    async with peer(play) as url, uplink(keep_alive=keep_alive) as path:
        async with path.open(url, body=b"{}", headers={}) as reply:
            await anext(reply.chunks())
        async with asyncio.timeout(0.25):
            await gone.wait()


async def test_a_cancelled_wait_for_the_first_byte_lets_go() -> None:
    """Also before there is an answer."""
    taken, gone = asyncio.Event(), asyncio.Event()

    async def play(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        taken.set()
        await reader.read()
        gone.set()

    async def ask(path: Uplink, url: str) -> None:
        async with path.open(url, body=b"", headers={}):
            pass

    limits = Limits(connect=1, first_byte=30, idle=30)
    async with peer(play) as url, uplink(limits) as path:
        asking = asyncio.create_task(ask(path, url))
        await taken.wait()
        asking.cancel()
        async with asyncio.timeout(0.25):
            await gone.wait()


async def test_headers_are_what_the_caller_gave() -> None:
    """No compression is asked for, so that bytes stay readable on the way."""
    seen = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.set_result((await reader.readuntil(b"\r\n\r\n")).lower())
        await send(writer, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    async with uplink() as path, path.open(url, body=b"{}", headers={"x-mine": "1"}) as reply:
        await reply.read(10)
    server.close()

    head = await seen
    assert b"accept-encoding: identity" in head
    assert b"x-mine: 1" in head
    assert b"content-length: 2" in head
