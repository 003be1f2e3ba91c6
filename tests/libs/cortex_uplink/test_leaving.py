"""An answer that is left, whenever and for whatever reason, leaves nothing behind."""

import asyncio

import pytest

from cortex_uplink import (
    Answer,
    ConnectFailed,
    ConnectionLost,
    UplinkError,
)
from tests.libs.cortex_uplink.peers import (
    CHUNKED,
    OK,
    PATIENT,
    answers,
    ask,
    no_new_tasks,
    peer,
    read_request,
    send,
    silent,
    until,
    uplink,
)


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_leaving_ends_the_upstream_request_at_once(keep_alive: bool) -> None:
    """This is how a client that hung up reaches the engine."""
    gone = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"1\r\nx\r\n")
        await reader.read()
        gone.set()

    async with peer(play) as node, uplink(keep_alive=keep_alive) as path:
        async with path.open(node.url, body=b"{}", headers={}) as reply:
            await anext(reply.chunks())
        async with asyncio.timeout(0.25):
            await gone.wait()


async def test_a_cancelled_wait_for_the_first_byte_lets_go() -> None:
    """Also before there is an answer."""
    taken, gone = asyncio.Event(), asyncio.Event()

    async def play(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        taken.set()
        await reader.read()
        gone.set()

    async with peer(play) as node, uplink(PATIENT) as path:
        asking = asyncio.create_task(ask(path, node.url))
        await taken.wait()
        asking.cancel()
        async with asyncio.timeout(0.25):
            await gone.wait()
        await until(lambda: path.open_connections == 0)


async def test_a_cancelled_read_lets_go() -> None:
    """In the middle of an answer."""
    begun, gone = asyncio.Event(), asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"1\r\nx\r\n")
        begun.set()
        await reader.read()
        gone.set()

    async with peer(play) as node, uplink(PATIENT) as path:
        asking = asyncio.create_task(ask(path, node.url))
        await begun.wait()
        asking.cancel()
        async with asyncio.timeout(0.25):
            await gone.wait()
        await until(lambda: path.open_connections == 0)


async def test_an_answer_that_was_left_cannot_be_read_on() -> None:
    """Its connection belongs to somebody else by then."""
    async with peer(answers(OK, OK)) as node, uplink() as path:
        async with path.open(node.url, body=b"", headers={}) as left:
            pass
        async with path.open(node.url, body=b"", headers={}) as mine:
            with pytest.raises(ConnectionLost):
                await left.read(10)
            assert await mine.read(10) == b"ok"

    assert node.made == 1


async def test_a_reader_of_an_answer_that_is_left_does_not_wait_for_ever() -> None:
    """It is told."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED)
        await reader.read()

    async def read(reply: Answer) -> bytes:
        return await reply.read(10)

    async with peer(play) as node, uplink(PATIENT) as path:
        async with path.open(node.url, body=b"", headers={}) as reply:
            reading = asyncio.create_task(read(reply))
            await asyncio.sleep(0)
        with pytest.raises(ConnectionLost):
            await reading


async def test_closing_the_uplink_ends_what_is_under_way() -> None:
    """A daemon that ends does not wait for its nodes."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED)
        await reader.read()

    async with no_new_tasks(), peer(play) as node, uplink(PATIENT) as path:
        async with path.open(node.url, body=b"", headers={}) as reply:
            await path.aclose()
            with pytest.raises(ConnectionLost):
                await reply.read(10)
        with pytest.raises(ConnectFailed):
            await ask(path, node.url)


async def test_nothing_is_left_after_every_kind_of_failure() -> None:
    """No connection, and no task."""
    for play in (
        silent,
        answers(),
        answers(b"HTTP"),
        answers(b"nonsense"),
        answers(CHUNKED),
        answers(CHUNKED + b"nonsense"),
    ):
        async with no_new_tasks(), peer(play) as node, uplink() as path:
            with pytest.raises(UplinkError):
                await ask(path, node.url)
            await until(lambda path=path: path.open_connections == 0)  # type: ignore[misc]
