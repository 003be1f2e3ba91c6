"""The path that bytes take: as they come, with limits, and never longer than they are wanted."""

import asyncio
import os
import time

import pytest

from cortex_uplink import (
    ConnectFailed,
    ConnectionLost,
    FirstByteTimeout,
    IdleTimeout,
    Limits,
    MalformedAnswer,
    RequestRefused,
)
from tests.libs.cortex_uplink.peers import (
    CHUNKED,
    OK,
    PATIENT,
    answers,
    ask,
    peer,
    read_request,
    reset,
    send,
    until,
    uplink,
)


async def test_chunks_come_one_by_one_as_they_were_sent() -> None:
    """The first chunk is readable while the second does not exist yet."""
    go_on = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"3\r\none\r\n")
        await go_on.wait()
        await send(writer, b"3\r\ntwo\r\n0\r\n\r\n")

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
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

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.close()

    async with peer(play) as node, uplink() as path:
        with pytest.raises(ConnectFailed):
            async with path.open(node.url, body=b"{}", headers={}):
                pass


async def test_the_first_byte_has_a_limit() -> None:
    """A peer that takes the request and says nothing."""

    async def play(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async with peer(play) as node, uplink() as path:
        with pytest.raises(FirstByteTimeout):
            async with path.open(node.url, body=b"{}", headers={}):
                pass


async def test_silence_inside_an_answer_has_a_limit() -> None:
    """A long answer is not a failure, a silent one is."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"1\r\nx\r\n")
        await reader.read()

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        chunks = reply.chunks()
        assert await anext(chunks) == b"x"
        with pytest.raises(IdleTimeout):
            await anext(chunks)


async def test_an_answer_longer_than_every_limit_passes() -> None:
    """There is no total timeout."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED)
        for _number in range(8):
            await asyncio.sleep(0.08)  # each pause is within the idle limit, their sum is not
            await send(writer, b"1\r\nx\r\n")
        await send(writer, b"0\r\n\r\n")

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        assert await reply.read(100) == b"x" * 8


async def test_an_answer_that_breaks_off_is_a_lost_connection() -> None:
    """Never taken for its end."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"1\r\nx\r\n")

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        with pytest.raises(ConnectionLost):
            await reply.read(100)


async def test_an_answer_beyond_the_bound_is_refused() -> None:
    """Memory is bounded whatever a peer sends."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"5\r\nxxxxx\r\n0\r\n\r\n")

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        with pytest.raises(ConnectionLost):
            await reply.read(4)


async def test_headers_are_what_the_caller_gave() -> None:
    """And those of the answer are found in any case."""
    heads: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, body = await read_request(reader)
        heads.append(head + body)
        await send(writer, b"HTTP/1.1 201 x\r\nX-Theirs: 1\r\ncontent-length: 0\r\n\r\n")

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={"X-Mine": "1"}) as reply,
    ):
        assert (reply.status, reply.headers["x-theirs"]) == (201, "1")

    assert b"x-mine: 1\r\n" in heads[0]
    assert b"content-length: 2\r\n" in heads[0]
    assert heads[0].startswith(b"post /x http/1.1\r\n")
    assert heads[0].endswith(b"\r\n\r\n{}")


async def test_trailers_are_there_after_the_end() -> None:
    """Not before, and not among the headers."""
    raw = CHUNKED + b"1\r\nx\r\n0\r\nX-Sum: 9\r\n\r\n"

    async with (
        peer(answers(raw)) as node,
        uplink() as path,
        path.open(node.url, body=b"", headers={}) as reply,
    ):
        await reply.read(10)
        assert dict(reply.trailers) == {"x-sum": "9"}
        assert "x-sum" not in reply.headers


async def test_an_answer_to_head_ends_with_its_head() -> None:
    """Its length is that of another body."""
    raw = b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"

    async with peer(answers(raw, raw)) as node, uplink() as path:
        assert await ask(path, node.url, b"", "HEAD") == b""
        assert await ask(path, node.url, b"", "HEAD") == b""

    assert node.made == 1


async def test_an_answer_may_end_with_the_connection() -> None:
    """As servers of HTTP/1.0 do it."""
    async with peer(answers(b"HTTP/1.0 200 OK\r\n\r\nall of it")) as node, uplink() as path:
        assert await ask(path, node.url) == b"all of it"
        await until(lambda: path.open_connections == 0)


async def test_an_end_by_reset_is_no_end() -> None:
    """Where the connection's end is the answer's, it has to be a proper one."""
    seen = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, b"HTTP/1.0 200 OK\r\n\r\nhalf of")
        await seen.wait()
        reset(writer)

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        chunks = reply.chunks()
        assert await anext(chunks) == b"half of"
        seen.set()
        with pytest.raises(ConnectionLost):
            await anext(chunks)


async def test_what_comes_before_the_answer_is_passed_over() -> None:
    """A 100 that nobody waits for, and hints."""
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"

    async with peer(answers(interim + OK)) as node, uplink() as path:
        assert await ask(path, node.url) == b"ok"


async def test_a_head_that_breaks_off_is_a_lost_connection() -> None:
    """Something came, so it is not the same as nothing."""
    async with peer(answers(b"HTTP/1.1 200 OK\r\nx")) as node, uplink() as path:
        with pytest.raises(ConnectionLost):
            await ask(path, node.url)
        await until(lambda: path.open_connections == 0)


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        CHUNKED + b"zz\r\n",
        b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_refused_at_once(raw: bytes) -> None:
    """Without waiting for any limit, and the connection is closed."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, raw)
        await reader.read()

    async with peer(play) as node, uplink(PATIENT) as path:
        with pytest.raises(MalformedAnswer):
            await ask(path, node.url)
        await until(lambda: path.open_connections == 0)


async def test_a_request_that_may_not_be_sent_is_refused() -> None:
    """Nothing of it reaches anybody."""
    async with peer(answers(OK)) as node, uplink() as path:
        for url, headers in [
            (node.url + "\r\nx: y", {}),
            (node.url, {"x": "a\r\nb: c"}),
            ("ftp://node/", {}),
        ]:
            with pytest.raises(RequestRefused):
                async with path.open(url, body=b"", headers=headers):
                    pass

    assert node.made == 0


async def test_a_loop_that_was_held_up_reads_before_it_judges() -> None:
    """A busy moment of ours is not the other side's silence."""
    sockets: list[int] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED)
        sockets.append(writer.get_extra_info("socket").fileno())
        await reader.read()

    async with (
        peer(play) as node,
        uplink(Limits(connect=1, first_byte=0.1, idle=0.1)) as path,
        path.open(node.url, body=b"", headers={}) as reply,
    ):
        await until(lambda: bool(sockets))
        os.write(sockets[0], b"1\r\nx\r\n0\r\n\r\n")
        time.sleep(0.2)  # noqa: ASYNC251  # what is tested

        assert await reply.read(10) == b"x"
