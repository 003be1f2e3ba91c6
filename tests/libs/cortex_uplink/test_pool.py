"""Which connection a request goes over, and when it goes twice."""

import asyncio
import time

import pytest

from cortex_uplink import ConnectFailed, ConnectionLost, FirstByteTimeout, HungUp
from cortex_uplink.addresses import Origin, target_of
from cortex_uplink.pool import Pool
from tests.libs.cortex_uplink.peers import (
    CHUNKED,
    OK,
    PATIENT,
    SOON_SECS,
    Play,
    answers,
    ask,
    no_new_tasks,
    peer,
    read_request,
    reset,
    send,
    silent,
    until,
    uplink,
)


async def test_a_connection_is_used_again() -> None:
    """After an answer of either form, read or not."""
    chunked = CHUNKED + b"2\r\nok\r\n0\r\n\r\n"
    async with peer(answers(OK, chunked, OK, OK)) as node, uplink() as path:
        for _ in range(3):
            assert await ask(path, node.url) == b"ok"
        async with path.open(node.url, body=b"", headers={}):
            pass
        assert path.open_connections == 1

    assert node.made == 1


async def test_without_keep_alive_each_request_has_its_own() -> None:
    """And says so."""
    heads: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await read_request(reader))[0])
        await send(writer, OK)
        await reader.read()

    async with peer(play) as node, uplink(keep_alive=False) as path:
        for _ in range(3):
            assert await ask(path, node.url) == b"ok"
        await until(lambda: path.open_connections == 0)

    assert node.made == 3
    assert all(b"connection: close\r\n" in head for head in heads)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        OK + b"\r\n",
        CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + OK,
    ],
)
async def test_a_connection_that_may_not_be_used_again_is_closed(answer: bytes) -> None:
    """Above all where the server said more than its answer."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, answer)
        await reader.read()

    async with peer(play) as node, uplink() as path:
        for _ in range(2):
            assert await ask(path, node.url) == b"ok"
            await until(lambda: path.open_connections == 0)

    assert node.made == 2


async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_ones() -> None:
    """It may have come while the connection was idle, or be waiting in the kernel."""
    for let_the_loop_see_it in (True, False):
        sent = asyncio.Event()

        async def play(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            sent: asyncio.Event = sent,
        ) -> None:
            await read_request(reader)
            await send(writer, OK)
            if not sent.is_set():
                await asyncio.sleep(0.02)
                await send(writer, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
                sent.set()
                await reader.read()

        async with peer(play) as node, uplink() as path:
            assert await ask(path, node.url) == b"ok"
            await sent.wait()
            if let_the_loop_see_it:
                await until(lambda path=path: path.open_connections == 0)  # type: ignore[misc]

            assert await ask(path, node.url) == b"ok"

        assert node.made == 2


async def test_a_connection_that_the_server_closed_is_not_used() -> None:
    """It is forgotten when that happens."""
    async with peer(answers(OK)) as node, uplink() as path:
        for _ in range(3):
            assert await ask(path, node.url) == b"ok"
            await until(lambda: path.open_connections == 0)

    assert node.made == 3


def dying(first: Play) -> Play:
    """Answer once; do `first` with the next request of that connection; then answer for good."""
    made = 0

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        while True:
            await read_request(reader)
            await send(writer, OK)
            if made == 1:
                await reader.readexactly(1)
                await first(reader, writer)
                return

    return play


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End properly."""
    writer.close()


async def crash(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End with a reset."""
    reset(writer)


async def half_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that nothing more will come, and go on listening."""
    writer.write_eof()
    await reader.read()


@pytest.mark.parametrize("death", [hang_up, crash, half_close])
async def test_a_kept_connection_that_dies_before_a_byte_is_replaced_once(death: Play) -> None:
    """The server had closed it as idle while the request was on its way."""
    async with no_new_tasks(), peer(dying(death)) as node, uplink(PATIENT) as path:
        assert await ask(path, node.url) == b"ok"
        assert await ask(path, node.url, bytes(1 << 20)) == b"ok"

    assert node.made == 2


async def test_a_new_connection_that_dies_is_not_replaced() -> None:
    """That is no accident of keeping it."""
    async with peer(answers()) as node, uplink() as path:
        with pytest.raises(HungUp):
            await ask(path, node.url)
        await until(lambda: path.open_connections == 0)

    assert node.made == 1


async def test_a_replacement_that_dies_too_is_not_replaced() -> None:
    """Once means once."""
    made = 0

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        if made == 1:
            await read_request(reader)
            await send(writer, OK)
            await reader.readexactly(1)

    async with peer(play) as node, uplink() as path:
        assert await ask(path, node.url) == b"ok"
        with pytest.raises(HungUp):
            await ask(path, node.url)

    assert made == 2


async def test_a_kept_connection_that_dies_after_a_byte_is_not_replaced() -> None:
    """The request may have been worked on: a 100 says that it was seen."""
    for byte in (b"H", b"HTTP/1.1 100 Continue\r\n\r\n"):

        async def some(
            _: asyncio.StreamReader, writer: asyncio.StreamWriter, byte: bytes = byte
        ) -> None:
            await send(writer, byte)

        async with peer(dying(some)) as node, uplink() as path:
            assert await ask(path, node.url) == b"ok"
            with pytest.raises(ConnectionLost):
                await ask(path, node.url)

        assert node.made == 1


async def test_a_kept_connection_that_is_silent_is_not_replaced() -> None:
    """It took the request, and works on it for all we know."""
    async with peer(dying(silent)) as node, uplink() as path:
        assert await ask(path, node.url) == b"ok"
        with pytest.raises(FirstByteTimeout):
            await ask(path, node.url)

    assert node.made == 1


async def test_many_at_once_have_a_connection_each_and_give_it_back() -> None:
    """Nobody waits for anybody else."""
    count = 50
    together = asyncio.Barrier(count)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await together.wait()
        await send(writer, OK)
        while True:
            await read_request(reader)
            await send(writer, OK)

    async with peer(play) as node, uplink(PATIENT) as path:
        first = await asyncio.gather(*(ask(path, node.url) for _ in range(count)))
        second = await asyncio.gather(*(ask(path, node.url) for _ in range(count)))
        assert path.open_connections == count

    assert first + second == [b"ok"] * 2 * count
    assert node.made == count


async def test_the_one_used_last_is_used_first() -> None:
    """So that those not needed get old."""
    async with peer(silent) as node:
        pool, origin = Pool(None), target_of(node.url).origin
        older, newer = [await pool.connect(origin, 1) for _ in range(2)]
        pool.give_back(origin, older)
        pool.give_back(origin, newer)

        assert [pool.take(origin) for _ in range(3)] == [newer, older, None]
        await pool.aclose()


async def test_no_more_than_so_many_are_kept() -> None:
    """The oldest goes."""
    async with peer(silent) as node:
        pool, origin = Pool(None, max_idle=2), target_of(node.url).origin
        made = [await pool.connect(origin, 1) for _ in range(3)]
        for one in made:
            pool.give_back(origin, one)

        await until(lambda: pool.open_count == 2)
        assert [pool.take(origin) for _ in range(3)] == [made[2], made[1], None]
        await pool.aclose()


async def test_what_nobody_uses_is_closed_in_time() -> None:
    """By itself; and the pool forgets where it led."""
    async with no_new_tasks(), peer(silent) as node:
        pool, origin = Pool(None, idle_secs=0.1), target_of(node.url).origin
        for _ in range(2):
            made = [await pool.connect(origin, 1) for _ in range(3)]
            for one in made:
                pool.give_back(origin, one)
            assert pool.open_count == 3
            await until(lambda: pool.open_count == 0)
            assert pool.take(origin) is None
        await pool.aclose()


async def test_what_is_too_old_is_not_used() -> None:
    """Even where nobody came to close it in time, because the loop was held up."""
    async with peer(silent) as node:
        pool, origin = Pool(None, idle_secs=0.05), target_of(node.url).origin
        pool.give_back(origin, await pool.connect(origin, 1))
        time.sleep(0.1)  # noqa: ASYNC251  # what is tested

        assert pool.take(origin) is None
        await pool.aclose()


async def test_origins_do_not_share() -> None:
    """The same host on another port is another server."""
    async with peer(answers(OK)) as one, peer(answers(OK)) as other, uplink() as path:
        assert await ask(path, one.url) == b"ok"
        assert await ask(path, other.url) == b"ok"

    assert (one.made, other.made) == (1, 1)


async def test_a_closed_pool_keeps_nothing() -> None:
    """What is given back after the end is closed."""
    async with peer(silent) as node:
        pool, origin = Pool(None), target_of(node.url).origin
        late = await pool.connect(origin, 1)
        await pool.aclose()
        pool.give_back(origin, late)

        async with asyncio.timeout(SOON_SECS):
            await pool.aclose()
        assert pool.open_count == 0
        with pytest.raises(ConnectFailed):
            await pool.connect(Origin("127.0.0.1", 1), 1)


@pytest.mark.parametrize("steps", range(12))
async def test_whoever_gives_up_while_connecting_leaves_no_connection(steps: int) -> None:
    """At whatever step of the loop; and closing does not wait for what is not there."""
    async with peer(silent) as node, uplink() as path:
        for _ in range(5):
            asking = asyncio.create_task(ask(path, node.url))
            for _ in range(steps):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
        await until(lambda: path.open_connections == 0)
        async with asyncio.timeout(SOON_SECS / 2):
            await path.aclose()
