"""Moments that a server cannot be made to hit: what the loop does twice before a task runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest

from cortex_uplink.addresses import target_of
from cortex_uplink.answer_parser import AnswerParser
from cortex_uplink.connection import Connection
from cortex_uplink.pool import Pool
from tests.libs.cortex_uplink.peers import CHUNKED, PATIENT, peer, silent

ONE, TWO, END = b"3\r\none\r\n", b"3\r\ntwo\r\n", b"0\r\n\r\n"


@asynccontextmanager
async def asked() -> AsyncIterator[tuple[Connection, AnswerParser]]:
    """A connection whose answer has begun; the rest of it comes when the test says so."""
    async with peer(silent) as node:
        pool, parser = Pool(None), AnswerParser()
        connection = await pool.connect(target_of(node.url).origin, 1)
        connection.ask(b"GET / HTTP/1.1\r\n\r\n", b"", parser, PATIENT)
        connection.data_received(CHUNKED)
        yield connection, parser
        await pool.aclose()


async def test_a_sink_that_asked_to_wait_is_not_called_before_that_is_done() -> None:
    """Even when more comes before the relaying task gets to run."""
    got: list[bytes] = []
    emptied = asyncio.Event()

    def sink(piece: bytes) -> Awaitable[object] | None:
        got.append(piece)
        return None if emptied.is_set() else emptied.wait()

    async with asked() as (connection, parser):
        relaying = asyncio.create_task(connection.relay(parser, sink))
        await asyncio.sleep(0)
        connection.data_received(ONE)
        connection.data_received(TWO)
        connection.data_received(TWO + END)
        before = list(got)
        emptied.set()
        await relaying

    assert before == [b"one"]
    assert got == [b"one", b"twotwo"]


async def test_what_a_sink_wanted_to_wait_for_is_let_go_with_a_cancelled_relay() -> None:
    """It was cancelled before it came to wait; a coroutine that nobody awaits would complain."""
    emptied = asyncio.Event()

    async with asked() as (connection, parser):
        relaying = asyncio.create_task(connection.relay(parser, lambda _: emptied.wait()))
        await asyncio.sleep(0)
        connection.data_received(ONE)
        relaying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await relaying


async def test_an_answer_that_ends_in_the_same_breath_is_given_whole() -> None:
    """Head, body and the connection's end, all before the reader runs."""
    async with asked() as (connection, parser):
        reading = asyncio.create_task(connection.block(parser))
        await asyncio.sleep(0)
        connection.data_received(ONE)
        connection.data_received(TWO + END)
        connection.eof_received()

        assert await reading == b"onetwo"
        assert await connection.block(parser) == b""
