"""The direct way: bytes given on from where they arrive."""

import asyncio
from collections.abc import Awaitable

import pytest

from cortex_uplink import ConnectionLost, IdleTimeout, MalformedAnswer
from tests.libs.cortex_uplink.peers import (
    CHUNKED,
    OK,
    PATIENT,
    answers,
    peer,
    read_request,
    send,
    until,
    uplink,
)


async def test_pieces_are_given_on_as_they_come() -> None:
    """The first is there while the second does not exist yet."""
    go_on = asyncio.Event()
    got: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"3\r\none\r\n")
        await go_on.wait()
        await send(writer, b"3\r\ntwo\r\n0\r\n\r\n")

    def sink(piece: bytes) -> None:
        got.append(piece)
        go_on.set()

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        await reply.relay(sink)

    assert got == [b"one", b"two"]


async def test_no_task_runs_between_arrival_and_sink() -> None:
    """The event loop itself gives on what comes."""
    go_on = asyncio.Event()
    given_by: list[object] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED)
        await go_on.wait()
        await send(writer, b"1\r\nx\r\n0\r\n\r\n")

    def sink(_: bytes) -> None:
        given_by.append(asyncio.current_task())

    async with (
        peer(play) as node,
        uplink(PATIENT) as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        relaying = asyncio.create_task(reply.relay(sink))
        await asyncio.sleep(0)
        go_on.set()
        await relaying

    assert given_by == [None]


async def test_what_was_there_before_is_given_first() -> None:
    """Head and body often come together."""
    got: list[bytes] = []

    async with (
        peer(answers(OK)) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        await reply.relay(got.append)
        await reply.relay(got.append)

    assert got == [b"ok"]


async def test_a_sink_that_is_full_is_not_given_more() -> None:
    """Everything that came meanwhile comes after the wait, in order and in one piece."""
    emptied = asyncio.Event()
    got: list[bytes] = []
    count = 100

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED)
        for number in range(count):
            await send(writer, b"3\r\n%03d\r\n" % number)
            await asyncio.sleep(0)
        await send(writer, b"0\r\n\r\n")

    def sink(piece: bytes) -> Awaitable[object] | None:
        got.append(piece)
        return None if emptied.is_set() else emptied.wait()

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        relaying = asyncio.create_task(reply.relay(sink))
        await until(lambda: bool(got))
        await asyncio.sleep(0.02)
        while_full = len(got)
        emptied.set()
        await relaying

    assert while_full == 1
    assert b"".join(got) == b"".join(b"%03d" % number for number in range(count))


async def test_what_a_sink_raises_ends_the_relay() -> None:
    """On the first piece and on later ones; the upstream request ends with it."""
    for bad in (1, 2):
        gone = asyncio.Event()
        calls: list[bytes] = []

        async def play(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            gone: asyncio.Event = gone,
        ) -> None:
            await read_request(reader)
            await send(writer, CHUNKED, b"1\r\nx\r\n")
            await asyncio.sleep(0.02)
            await send(writer, b"1\r\nx\r\n")
            await reader.read()
            gone.set()

        def sink(piece: bytes, bad: int = bad, calls: list[bytes] = calls) -> None:
            calls.append(piece)
            if len(calls) == bad:
                raise KeyError("mine")

        async with peer(play) as node, uplink(PATIENT) as path:
            with pytest.raises(KeyError, match="mine"):
                async with path.open(node.url, body=b"{}", headers={}) as reply:
                    await reply.relay(sink)
            async with asyncio.timeout(0.25):
                await gone.wait()

        assert len(calls) == bad


async def test_what_a_sink_raises_on_the_last_piece_is_not_lost() -> None:
    """Although the answer was complete."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED)
        await asyncio.sleep(0.02)
        await send(writer, b"1\r\nx\r\n0\r\n\r\n")
        await reader.read()

    def sink(piece: bytes) -> None:
        raise KeyError("mine")

    async with peer(play) as node, uplink(PATIENT) as path:
        with pytest.raises(KeyError, match="mine"):
            async with path.open(node.url, body=b"{}", headers={}) as reply:
                await reply.relay(sink)


async def test_a_relay_that_is_cancelled_ends_the_request_at_once() -> None:
    """Whether it waits for the other side or for its sink, and nothing is given after that."""
    never = asyncio.Event()

    for held in (None, never.wait):
        gone = asyncio.Event()
        got: list[bytes] = []

        async def play(
            reader: asyncio.StreamReader,
            writer: asyncio.StreamWriter,
            gone: asyncio.Event = gone,
        ) -> None:
            await read_request(reader)
            await send(writer, CHUNKED)
            await asyncio.sleep(0.02)
            await send(writer, b"1\r\nx\r\n")
            await reader.read()
            gone.set()

        async def relay(path: object, url: str, sink: object) -> None:
            async with path.open(url, body=b"{}", headers={}) as reply:  # type: ignore[attr-defined]
                await reply.relay(sink)

        def sink(
            piece: bytes, got: list[bytes] = got, held: object = held
        ) -> Awaitable[object] | None:
            got.append(piece)
            return held() if callable(held) else None

        async with peer(play) as node, uplink(PATIENT) as path:
            relaying = asyncio.create_task(relay(path, node.url, sink))
            await until(lambda got=got: bool(got))  # type: ignore[misc]
            relaying.cancel()
            async with asyncio.timeout(0.25):
                await gone.wait()
            await until(lambda path=path: path.open_connections == 0)  # type: ignore[misc]

        assert got == [b"x"]


async def test_silence_has_a_limit_in_a_relay_too() -> None:
    """After what came was given."""
    got: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"1\r\nx\r\n")
        await reader.read()

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        with pytest.raises(IdleTimeout):
            await reply.relay(got.append)

    assert got == [b"x"]


@pytest.mark.parametrize(("rest", "error"), [(b"", ConnectionLost), (b"nonsense", MalformedAnswer)])
async def test_a_broken_answer_is_told_after_what_came_of_it(
    rest: bytes, error: type[Exception]
) -> None:
    """Never taken for the end."""
    got: list[bytes] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED, b"1\r\nx\r\n")
        await asyncio.sleep(0.02)
        await send(writer, rest)

    async with (
        peer(play) as node,
        uplink() as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        with pytest.raises(error):
            await reply.relay(got.append)

    assert got == [b"x"]


async def test_trailers_that_are_refused_end_no_answer() -> None:
    """Though all of its body was there."""
    trailer = b"1\r\nx\r\n0\r\ncontent-length: 1\r\n\r\n"
    got: list[bytes] = []

    async with peer(answers(CHUNKED + trailer)) as node, uplink() as path:
        with pytest.raises(MalformedAnswer):
            async with path.open(node.url, body=b"{}", headers={}) as reply:
                await reply.relay(got.append)
        with pytest.raises(MalformedAnswer):
            async with path.open(node.url, body=b"{}", headers={}) as reply:
                await reply.read(10)

        assert path.open_connections == 0
