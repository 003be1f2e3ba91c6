"""Nobody has to keep more than a bound, whichever side is slow; nothing is sent in vain."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from cortex_uplink import IdleTimeout, Limits, RequestRefused, Stream
from cortex_uplink.connection import MAX_UNREAD_BYTES
from tests.libs.cortex_uplink.peers import (
    CHUNKED,
    LIMITS,
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

BLOCK = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
#: Just too many to be kept unread.
BLOCKS = MAX_UNREAD_BYTES // 0x4000 + 1
#: What the two kernels' buffers take on loopback, generously.
KERNEL_BYTES = 16 * 1024 * 1024
MUCH = 64 * 1024 * 1024


class Flood:
    """A server that sends as much as is taken, up to `MUCH`, and counts."""

    def __init__(self) -> None:
        self.sent = 0

    async def play(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve."""
        writer.transport.set_write_buffer_limits(high=0)
        await read_request(reader)
        await send(writer, CHUNKED)
        while self.sent < MUCH:
            await send(writer, BLOCK)
            self.sent += 0x4000
        await send(writer, b"0\r\n\r\n")


async def stalled(count: Callable[[], int]) -> int:
    """Return the count once it grows no more."""
    before = -1
    while before != (now := count()):
        before = now
        await asyncio.sleep(0.1)
    return now


async def test_a_slow_reader_makes_the_server_wait() -> None:
    """And gets everything when it reads on; it was not the server that was silent."""
    flood = Flood()
    async with (
        peer(flood.play) as node,
        uplink(LIMITS) as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        chunks = reply.chunks()
        size = len(await anext(chunks))
        assert await stalled(lambda: flood.sent) < MAX_UNREAD_BYTES + KERNEL_BYTES
        await asyncio.sleep(LIMITS.idle + 0.1)  # longer than the limit
        longest = 0
        async for chunk in chunks:
            size += len(chunk)
            longest = max(longest, len(chunk))

    assert size == MUCH
    assert longest <= 2 * MAX_UNREAD_BYTES


async def test_a_slow_sink_makes_the_server_wait() -> None:
    """The same on the direct way."""
    flood = Flood()
    emptied = asyncio.Event()
    size = longest = 0

    def sink(piece: bytes) -> Awaitable[object] | None:
        nonlocal size, longest
        size += len(piece)
        longest = max(longest, len(piece))
        return None if emptied.is_set() else emptied.wait()

    async with (
        peer(flood.play) as node,
        uplink(LIMITS) as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        relaying = asyncio.create_task(reply.relay(sink))
        assert await stalled(lambda: flood.sent) < MAX_UNREAD_BYTES + KERNEL_BYTES
        await asyncio.sleep(LIMITS.idle + 0.1)  # longer than the limit
        emptied.set()
        await relaying

    assert size == MUCH
    assert longest <= 2 * MAX_UNREAD_BYTES


async def test_silence_counts_again_after_a_pause() -> None:
    """From when we read on; a server that is silent for longer than that is found out."""
    got: list[bytes] = []
    read_on = asyncio.Event()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await send(writer, CHUNKED)
        for _ in range(BLOCKS):
            await send(writer, BLOCK)
        await read_on.wait()
        await asyncio.sleep(LIMITS.idle / 2)  # within the limit
        await send(writer, BLOCK)
        await reader.read()

    def sink(piece: bytes) -> None:
        got.append(piece)
        read_on.set()

    async with (
        peer(play) as node,
        uplink(LIMITS) as path,
        path.open(node.url, body=b"{}", headers={}) as reply,
    ):
        await asyncio.sleep(LIMITS.idle + 0.1)  # longer than the limit
        with pytest.raises(IdleTimeout):
            await reply.relay(sink)

    assert sum(map(len, got)) == (BLOCKS + 1) * 0x4000


async def test_a_large_body_arrives_whole() -> None:
    """In pieces, as it is taken, and again on the same connection."""
    got: list[bytes] = []
    body = bytes(range(256)) * 40_000

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            got.append((await read_request(reader))[1])
            await send(writer, OK)

    async with peer(play) as node, uplink(PATIENT) as path:
        assert await ask(path, node.url, body) == b"ok"
        assert await ask(path, node.url, body) == b"ok"

    assert got == [body, body]
    assert node.made == 1


async def test_a_request_that_is_taken_slowly_has_time() -> None:
    """The first byte is waited for from when the other side last took something."""
    body = bytes(16 * 1024 * 1024)
    took = 0.0

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal took
        # So that little is on its way when the last of it has been sent.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        await reader.readuntil(b"\r\n\r\n")
        began, left = time.monotonic(), len(body)
        while left:
            left -= len(await reader.read(1 << 16))
            await asyncio.sleep(0.004)
        took = time.monotonic() - began
        await send(writer, OK)

    limits = Limits(connect=1, first_byte=0.5, idle=0.5)
    async with peer(play) as node, uplink(limits) as path:
        assert await ask(path, node.url, body) == b"ok"

    assert took > 2 * limits.first_byte


async def test_an_early_refusal_is_read_and_the_rest_is_not_sent() -> None:
    """A server need not take 64 MiB in order to say no; the connection is of no use after that."""
    taken = 0

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await reader.readuntil(b"\r\n\r\n")
        await send(writer, b"HTTP/1.1 413 x\r\ncontent-length: 4\r\n\r\nmuch")
        while data := await reader.read(1 << 16):
            taken += len(data)

    async with peer(play) as node, uplink(PATIENT) as path:
        async with path.open(node.url, body=bytes(MUCH), headers={}) as reply:
            assert (reply.status, await reply.read(10)) == (413, b"much")
            assert await stalled(lambda: taken) < KERNEL_BYTES
        await until(lambda: path.open_connections == 0)
        await until(lambda: not node.writers)


async def test_an_early_refusal_is_read_although_the_server_has_closed() -> None:
    """Without having read what we sent, which makes a reset of its end."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await send(writer, b"HTTP/1.1 413 x\r\nconnection: close\r\ncontent-length: 4\r\n\r\nmuch")

    async with peer(play) as node, uplink(PATIENT) as path:
        async with path.open(node.url, body=bytes(MUCH), headers={}) as reply:
            assert (reply.status, await reply.read(10)) == (413, b"much")
        await until(lambda: path.open_connections == 0)


async def test_an_early_answer_that_is_no_refusal_does_not_stop_the_request() -> None:
    """A server may answer while it reads."""
    body = bytes(4 * 1024 * 1024)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await send(writer, CHUNKED)
        size = len(await reader.readexactly(len(body)))
        await send(writer, b"7\r\n%07d\r\n0\r\n\r\n" % size)
        await read_request(reader)
        await send(writer, OK)

    async with peer(play) as node, uplink(PATIENT) as path:
        assert await ask(path, node.url, body) == b"%07d" % len(body)
        assert await ask(path, node.url) == b"ok"

    assert node.made == 1


async def test_a_connection_whose_request_is_still_going_out_is_not_kept() -> None:
    """The answer was complete before the request was."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await send(writer, OK)
        await asyncio.sleep(60)  # until the end of the test

    async with peer(play) as node, uplink(PATIENT) as path:
        assert await ask(path, node.url, bytes(MUCH)) == b"ok"
        await until(lambda: path.open_connections == 0)


async def parts(*each: bytes) -> AsyncIterator[bytes]:
    """Yield what is given."""
    for one in each:
        yield one
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("length", "header"), [(None, b"transfer-encoding: chunked"), (4, b"content-length: 4")]
)
async def test_a_body_may_come_in_parts(length: int | None, header: bytes) -> None:
    """With a length or in chunks; a part without bytes is not taken for the end."""
    got: list[tuple[bytes, bytes]] = []

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await read_request(reader))
        await send(writer, OK)

    async with no_new_tasks(), peer(play) as node, uplink(PATIENT) as path:
        body = Stream(parts(b"a", b"", b"bcd"), length)
        async with path.open(node.url, body=body, headers={}) as reply:
            assert await reply.read(10) == b"ok"

    ((head, sent),) = got
    assert header in head
    assert sent == b"abcd"


async def test_a_body_in_parts_never_goes_where_it_may_have_to_be_sent_twice() -> None:
    """A kept connection may be dead; nobody could give the parts again."""
    async with peer(answers(OK, OK)) as node, uplink(PATIENT) as path:
        assert await ask(path, node.url) == b"ok"
        async with path.open(node.url, body=Stream(parts(b"abcd")), headers={}) as reply:
            assert await reply.read(10) == b"ok"

    assert node.made == 2


@pytest.mark.parametrize("length", [3, 5])
async def test_a_body_of_another_length_than_announced_is_refused(length: int) -> None:
    """Sent like that, its end would be read as the next request."""
    async with no_new_tasks(), peer(answers(OK)) as node, uplink(PATIENT) as path:
        with pytest.raises(RequestRefused):
            async with path.open(node.url, body=Stream(parts(b"abcd"), length), headers={}):
                pass
        await until(lambda: path.open_connections == 0)


async def test_what_goes_wrong_with_a_body_is_told_to_its_owner() -> None:
    """While it waits for the answer, and while it reads one."""

    async def bad() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0.02)
        raise KeyError("mine")

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await send(writer, CHUNKED)
        await reader.read()

    for play in (silent, early):
        async with no_new_tasks(), peer(play) as node, uplink(PATIENT) as path:
            with pytest.raises(KeyError, match="mine"):
                async with path.open(node.url, body=Stream(bad()), headers={}) as reply:
                    await reply.read(10)
            await until(lambda path=path: path.open_connections == 0)  # type: ignore[misc]


async def test_a_body_that_nobody_waits_for_any_more_is_let_go() -> None:
    """The answer was complete before its next part came."""

    async def waiting() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await send(writer, OK)
        await reader.read()

    async with no_new_tasks(), peer(play) as node, uplink(PATIENT) as path:
        async with path.open(node.url, body=Stream(waiting()), headers={}) as reply:
            assert await reply.read(10) == b"ok"
        await until(lambda: path.open_connections == 0)


async def test_a_slow_server_makes_a_body_in_parts_wait() -> None:
    """No more is asked of it than is taken."""
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 0x4000
            yield bytes(0x4000)

    async def play(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await asyncio.sleep(10)

    async def post(path: object, url: str) -> None:
        async with path.open(url, body=Stream(endless()), headers={}):  # type: ignore[attr-defined]
            pass

    async with no_new_tasks(), peer(play) as node, uplink(PATIENT) as path:
        posting = asyncio.create_task(post(path, node.url))
        assert await stalled(lambda: given) < KERNEL_BYTES
        posting.cancel()
        await until(lambda: path.open_connections == 0)


async def test_a_body_in_parts_ends_with_a_refusal() -> None:
    """Nobody asks it for more."""

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(0x4000)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await send(writer, b"HTTP/1.1 413 x\r\ncontent-length: 4\r\n\r\nmuch")
        await reader.read()

    async with no_new_tasks(), peer(play) as node, uplink(PATIENT) as path:
        async with path.open(node.url, body=Stream(endless()), headers={}) as reply:
            assert (reply.status, await reply.read(10)) == (413, b"much")
        await until(lambda: path.open_connections == 0)
