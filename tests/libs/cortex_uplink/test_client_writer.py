"""Answers as they stand on the wire."""

import asyncio
from collections.abc import Callable

import pytest

from cortex_uplink.answer_parser import AnswerParser
from cortex_uplink.client_request import ClientRequest, request_name
from cortex_uplink.client_writer import ClientWriter
from tests.libs.cortex_uplink.fronts import GET, SOON_SECS, exchange, front
from tests.libs.cortex_uplink.peers import until

HEAD = b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n"
OLD = b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
HEAD_LAST = LAST.replace(b"GET", b"HEAD")
FRAMES = b"8\r\ndata: \n\n\r\n"


async def answered(raw: bytes, write: Callable[[ClientWriter], None]) -> bytes:
    """Return what a client hears that sends `raw`."""

    async def handle(_: ClientRequest, writer: ClientWriter) -> None:
        write(writer)

    async with front(handle) as made:
        return await exchange(made.port, raw)


def whole(status: int = 200) -> Callable[[ClientWriter], None]:
    """Write a whole answer."""
    return lambda writer: writer.whole(status, {"x": "y", "z": "\xe4"}, b"body")


async def test_a_whole_answer() -> None:
    """Its length is told, in bytes."""
    assert await answered(LAST, whole()) == (
        b"HTTP/1.1 200 OK\r\nconnection: close\r\nx: y\r\nz: \xe4\r\ncontent-length: 4\r\n\r\nbody"
    )


async def test_an_answer_to_head_is_a_head() -> None:
    """Of what GET would have got; the next answer begins behind it."""
    heard = await answered(HEAD + LAST, whole())

    assert heard.count(b"content-length: 4\r\n\r\n") == 2
    assert heard.count(b"body") == 1
    assert heard.endswith(b"body")


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_a_body_has_none(status: int) -> None:
    """Nor a length: a client waits for what is announced."""
    heard = await answered(LAST, whole(status))

    assert heard.endswith(b"x: y\r\nz: \xe4\r\n\r\n")
    assert b"content-length" not in heard


async def test_a_status_that_nobody_knows_is_told() -> None:
    """Those of nodes may be any."""
    assert (await answered(LAST, whole(799))).startswith(b"HTTP/1.1 799 Unknown\r\n")


async def test_a_stream_is_told_in_chunks() -> None:
    """Nothing is no chunk: it would be the end. What came in chunks passes as it is."""

    def steady(writer: ClientWriter) -> None:
        writer.open({"x": "y"}, 201)
        writer.write(b"a" * 17)
        writer.write(b"")
        assert writer.write_chunks(FRAMES)
        writer.end()

    assert await answered(LAST, steady) == (
        b"HTTP/1.1 201 Created\r\nconnection: close\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n"
        b"11\r\n" + b"a" * 17 + b"\r\n" + FRAMES + b"0\r\n\r\n"
    )


async def test_a_stream_to_a_client_of_1_0_ends_with_the_connection() -> None:
    """It knows no chunks, and may have asked to keep the connection all the same."""

    def old(writer: ClientWriter) -> None:
        writer.open({"x": "y"}, 201)
        writer.write(b"a")
        assert not writer.write_chunks(FRAMES)
        writer.write(b"data: \n\n")
        writer.end()

    assert await answered(OLD + OLD, old) == (
        b"HTTP/1.1 201 Created\r\nconnection: close\r\nx: y\r\n\r\nadata: \n\n"
    )


async def test_a_whole_answer_keeps_the_connection_of_a_client_of_1_0() -> None:
    """Where it asked for that."""
    heard = await answered(OLD + LAST, whole())

    assert heard.count(b"body") == 2
    assert heard.startswith(b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\n")


async def test_a_stream_to_head_is_a_head() -> None:
    """No chunk, and no last one."""

    def to_head(writer: ClientWriter) -> None:
        writer.open({}, 200)
        writer.write(b"a")
        assert not writer.write_chunks(FRAMES)
        writer.end()

    assert await answered(HEAD + HEAD_LAST, to_head) == (
        b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    )


async def test_chunks_do_not_pass_before_the_head() -> None:
    """They would be taken for it."""

    def early(writer: ClientWriter) -> None:
        assert not writer.write_chunks(FRAMES)
        whole()(writer)

    assert (await answered(LAST, early)).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_client_that_takes_too_little_is_known() -> None:
    """Chunks pass no more, and writing tells what to wait for, until it has taken them."""
    body = b"x" * 100_000

    async def handle(_: ClientRequest, writer: ClientWriter) -> None:
        writer.open({})
        sizes = 0
        while not writer.crowded:
            writer.write(body)
            sizes += 1
            await asyncio.sleep(0)
        assert not writer.write_chunks(FRAMES)
        taking = writer.write(body)
        assert taking is not None
        assert writer.enough() is not None
        await taking
        crowded.append(writer.crowded)
        assert writer.enough() is None
        assert writer.write(b"") is None
        writer.end()
        total.append((sizes + 1) * len(body))

    total: list[int] = []
    crowded: list[bool] = []
    async with front(handle) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port, limit=1024)
        writer.write(LAST)
        await until(lambda: bool(made.connections) and made.connection.crowded)
        async with asyncio.timeout(SOON_SECS):
            heard = await reader.read()
        writer.close()

    parser = AnswerParser()
    assert len(parser.feed(heard)) == total[0]
    assert crowded == [False]
    assert parser.complete


async def test_what_is_written_to_a_client_that_has_left_hurts_nobody() -> None:
    """Neither who writes nor the others whose bytes go out in the same turn."""
    left, go = asyncio.Event(), asyncio.Event()
    writers: list[ClientWriter] = []

    async def handle(_: ClientRequest, writer: ClientWriter) -> None:
        writer.open({})
        writers.append(writer)
        try:
            await go.wait()
            writer.end()
        except asyncio.CancelledError:
            left.set()

    async with front(handle) as made:
        _, leaving = await asyncio.open_connection("127.0.0.1", made.port)
        leaving.write(GET)
        await until(lambda: len(writers) == 1)
        staying = asyncio.create_task(exchange(made.port, LAST))
        await until(lambda: len(writers) == 2)
        leaving.transport.abort()
        await left.wait()
        for writer in writers:
            writer.write(b"data")
            writer.write_chunks(FRAMES)
        writers[0].end()
        await asyncio.sleep(0)
        go.set()

        assert (await staying).endswith(b"4\r\ndata\r\n" + FRAMES + b"0\r\n\r\n")


@pytest.mark.parametrize("theirs", ["a", "A-b_9.", "x" * 128])
def test_a_sane_name_of_a_request_is_kept(theirs: str) -> None:
    """So that a client finds it in our log."""
    assert request_name(theirs) == theirs


@pytest.mark.parametrize("theirs", [None, "", "a b", "a\r\nb", "x" * 129, "\xe4", "a/b"])
def test_another_name_is_replaced_by_one_of_ours(theirs: str | None) -> None:
    """Never the same twice."""
    one, other = request_name(theirs), request_name(theirs)

    assert one != other
    assert one.startswith("req-")
    assert request_name(one) == one
