"""One connection of a client: every request gets its one answer, and nothing outlives it."""

import asyncio
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest

from cortex_core.errors import ShuttingDown
from cortex_uplink import guarding
from cortex_uplink.client_connection import MAX_AHEAD_BYTES
from cortex_uplink.client_request import ClientRequest
from cortex_uplink.client_writer import ClientWriter
from tests.libs.cortex_uplink.fronts import GET, SOON_SECS, Front, echo, exchange, front
from tests.libs.cortex_uplink.peers import CERTIFICATE, reset, until

LAST = b"GET /last HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nhost: a\r\n"
OVER = ShuttingDown("over")


def told(status: str, body: bytes, connection: str = "keep-alive") -> bytes:
    """Return a whole answer."""
    head = f"HTTP/1.1 {status}\r\nconnection: {connection}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Waiting:
    """A handler that waits until it is let go, or cancelled."""

    def __init__(self, begin: bytes | None = None) -> None:
        self.begun, self.go, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._begin = begin

    async def __call__(self, request: ClientRequest, writer: ClientWriter) -> None:
        """Write the beginning of a stream where there is one, wait, answer."""
        if self._begin is not None:
            writer.open({})
            writer.write(self._begin)
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self._begin is None:
            await echo(request, writer)
        else:
            writer.end()


async def test_requests_of_one_packet_are_answered_in_turn() -> None:
    """And nothing behind the last."""
    async with front(echo) as made:
        heard = await exchange(made.port, GET + POST + b"content-length: 2\r\n\r\nab" + LAST + GET)

    assert heard == (
        told("200 OK", b"/ ") + told("200 OK", b"/b ab") + told("200 OK", b"/last ", "close")
    )
    assert len(made.taken) == 3


async def test_a_request_that_comes_while_another_is_answered_waits_its_turn() -> None:
    """In pieces, too."""
    handle = Waiting()
    async with front(handle) as made:
        asking = asyncio.create_task(exchange(made.port, GET, LAST[:20], LAST[20:-1], LAST[-1:]))
        await handle.begun.wait()
        await asyncio.sleep(0.05)
        assert len(made.taken) == 1
        handle.go.set()

        assert await asking == told("200 OK", b"/ ") + told("200 OK", b"/last ", "close")


async def test_what_is_refused_behind_an_answer_comes_behind_it() -> None:
    """And ends the connection."""
    async with front(echo) as made:
        heard = await exchange(made.port, GET + b"nonsense\r\n\r\n" + GET)

    answer, refusal = heard.split(b"HTTP/1.1 400 ")
    assert answer == told("200 OK", b"/ ")
    assert b"connection: close" in refusal
    assert len(made.taken) == 1


async def test_a_client_is_told_that_its_body_is_wanted() -> None:
    """Once, after all that was asked before, and not one of HTTP/1.0."""
    head = b"expect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"
    async with front(echo) as made:
        heard = await exchange(made.port, GET + POST + head, b"a", b"b")
        old = await exchange(made.port, b"POST /b HTTP/1.0\r\n" + head, b"a", b"b")

    answer = told("200 OK", b"/b ab", "close")
    assert heard == told("200 OK", b"/ ") + b"HTTP/1.1 100 Continue\r\n\r\n" + answer
    assert old == answer


async def test_a_body_that_is_there_already_is_not_asked_for() -> None:
    """Nor is one that will be refused."""
    async with front(echo) as made:
        here = await exchange(
            made.port,
            POST + b"connection: close\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\na",
        )
        refused = await exchange(
            made.port, POST + b"expect: 100-continue\r\ncontent-length: 9999999\r\n\r\n"
        )

    assert here == told("200 OK", b"/b a", "close")
    assert refused.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        GET[:9],
        POST + b"content-length: 9\r\n\r\nab",
        POST + b"transfer-encoding: chunked\r\n\r\n1",
    ],
    ids=["nothing", "head", "body", "chunk"],
)
@pytest.mark.parametrize("how", ["close", "reset", "half"])
async def test_a_client_that_leaves_before_it_has_asked_leaves_nothing(
    sent: bytes, how: str
) -> None:
    """No request, no connection."""
    async with front(echo) as made:
        _, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(sent)
        await until(lambda: bool(made.connections))
        _leave(writer, how)
        await until(lambda: not made.connections)
        writer.close()

    assert made.taken == []


@pytest.mark.parametrize(
    "begin", [None, b"x", b"x" * 10_000_000], ids=["head", "stream", "crowded"]
)
@pytest.mark.parametrize("how", ["close", "reset", "half"])
async def test_a_client_that_leaves_cancels_who_answers(begin: bytes | None, how: str) -> None:
    """At once: a seat on a node waits for it. One that ends its side has left, too."""
    handle = Waiting(begin)
    async with front(handle) as made:
        _, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(GET + GET)
        await handle.begun.wait()
        _leave(writer, how)
        async with asyncio.timeout(1):
            await handle.cancelled.wait()
        await until(lambda: not made.connections)
        writer.close()

    assert len(made.taken) == 1


def _leave(writer: asyncio.StreamWriter, how: str) -> None:
    if how == "half":
        writer.write_eof()
    elif how == "reset":
        reset(writer)
    else:
        writer.close()


async def test_nothing_more_is_begun_for_a_client_that_has_left() -> None:
    """Though the answer it had was whole, and it had asked for another."""
    begun = asyncio.Event()

    async def handle(request: ClientRequest, writer: ClientWriter) -> None:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(SOON_SECS)
        await echo(request, writer)

    async with front(handle) as made:
        _, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(GET + GET + GET)
        await begun.wait()
        reset(writer)
        await until(lambda: not made.connections)
        await asyncio.sleep(0.02)

    assert len(made.taken) == 1


@pytest.mark.parametrize("opened", [False, True])
async def test_who_ends_without_an_answer_ends_the_connection(opened: bool) -> None:
    """Half an answer is not made whole, and nothing follows it."""

    async def handle(_: ClientRequest, writer: ClientWriter) -> None:
        if opened:
            writer.open({})
            writer.write(b"half")
            await asyncio.sleep(0.01)

    async with front(handle) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(GET + GET)
        heard = b""
        with suppress(ConnectionResetError):
            while more := await reader.read(1 << 16):
                heard += more
        writer.close()

    assert heard.endswith(b"4\r\nhalf\r\n") if opened else heard == b""
    assert len(made.taken) == 1


async def test_what_is_said_to_a_connection_that_is_closed_still_goes_out() -> None:
    """Also when it waits for the turn's end with what others were written."""

    async def handle(request: ClientRequest, writer: ClientWriter) -> None:
        asyncio.get_running_loop().call_soon(request.connection.close_if_idle)
        await echo(request, writer)

    async with front(handle) as made:
        assert await exchange(made.port, GET) == told("200 OK", b"/ ")


async def test_who_has_no_answer_when_all_is_over_is_told() -> None:
    """Also one that asked in this moment; a stream just ends."""
    waits, streams = Waiting(), Waiting(b"some")
    async with front(waits) as one, front(streams) as other:
        waiting = asyncio.create_task(exchange(one.port, GET + GET))
        streaming = asyncio.create_task(_until_reset(other.port))
        await waits.begun.wait()
        await streams.begun.wait()
        one.connection.cut(OVER)
        other.connection.cut(OVER)

        assert await waiting == told("503 Service Unavailable", b"over", "close")
        assert (await streaming).endswith(b"4\r\nsome\r\n")

    async with front(Waiting()) as made:
        asking = asyncio.create_task(exchange(made.port, b""))
        await until(lambda: bool(made.connections))
        made.connection.data_received(GET)
        made.connection.cut(OVER)
        assert await asking == told("503 Service Unavailable", b"over", "close")


async def _until_reset(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    heard = b""
    with suppress(ConnectionResetError):
        while more := await reader.read(1 << 16):
            heard += more
    writer.close()
    return heard


async def test_an_idle_connection_is_closed_when_all_is_over() -> None:
    """One that is answered is not."""
    handle = Waiting()
    async with front(handle) as made:
        asking = asyncio.create_task(exchange(made.port, GET))
        await handle.begun.wait()
        assert not made.connection.close_if_idle()
        handle.go.set()
        await until(made.connection.close_if_idle)

        assert await asking == told("200 OK", b"/ ")


async def test_a_client_that_asks_on_and_on_is_not_read_for_ever() -> None:
    """And is answered all it asked when there is time."""
    handle = Waiting()
    many = 4 * MAX_AHEAD_BYTES // len(GET)
    async with front(handle) as made:
        asking = asyncio.create_task(exchange(made.port, GET, GET * many, LAST))
        await handle.begun.wait()
        await until(lambda: not _reads(made))
        handle.go.set()

        assert (await asking).count(told("200 OK", b"/ ")) == many + 1
    assert made.taken[-1].target == "/last"


def _reads(made: Front) -> bool:
    return made.connection.transport.is_reading()


async def test_a_client_that_asks_and_takes_nothing_is_made_to_wait() -> None:
    """What waits for it is bounded, and none of it is lost."""
    body, many = b"x" * 100_000, 300

    async def handle(_: ClientRequest, writer: ClientWriter) -> None:
        writer.whole(200, {}, body)

    async with front(handle) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port, limit=1024)
        writer.write(GET * many + LAST)
        await until(lambda: bool(made.connections) and made.connection.crowded)
        await asyncio.sleep(0.05)
        taken = len(made.taken)
        assert made.connection.transport.get_write_buffer_size() < 1 << 20
        await asyncio.sleep(0.05)
        assert len(made.taken) == taken < many
        async with asyncio.timeout(SOON_SECS):
            heard = await reader.read()
        writer.close()

    assert heard.count(b"HTTP/1.1 200 OK") == many + 1
    assert len(heard) > (many + 1) * len(body)


async def test_a_client_that_does_not_take_its_last_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though it is too little to count as a stall."""
    monkeypatch.setattr(guarding, "IDLE_SECS", 0.2)

    async def handle(request: ClientRequest, writer: ClientWriter) -> None:
        sock = request.connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await asyncio.sleep(0.25)  # whatever was looked for before has been
        writer.whole(200, {}, b"x" * 60_000)

    for last in (LAST, GET):
        async with front(handle) as made:
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect(("127.0.0.1", made.port))
                client.sendall(last)
                await until(lambda made=made: bool(made.taken))  # type: ignore[misc]
                await until(lambda made=made: not made.connections)  # type: ignore[misc]


async def test_a_connection_on_which_nothing_is_asked_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After its last answer, too."""
    monkeypatch.setattr(guarding, "IDLE_SECS", 0.1)
    async with front(echo) as made:
        assert await exchange(made.port) == b""
        assert await exchange(made.port, GET) == told("200 OK", b"/ ")


async def test_what_comes_behind_a_refusal_is_read_and_of_no_meaning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Up to a bound."""
    monkeypatch.setattr(guarding, "DISCARD_MAX_BYTES", 10_000)
    async with front(echo) as made:
        heard = await exchange(made.port, b"x\r\n\r\n", GET * 10, GET)
        assert heard.count(b"HTTP/1.1 ") == 1
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"x\r\n\r\n")
        await reader.readuntil(b"malformed")
        writer.write(GET * 1000)
        await until(lambda: not made.connections)
        writer.close()

    assert made.taken == []


async def test_it_works_over_tls() -> None:
    """Refusals too, though no such connection can end one side only."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    client = ssl.create_default_context(cafile=str(CERTIFICATE))

    async def ask(port: int, raw: bytes, ends: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=client)
        writer.write(raw)
        async with asyncio.timeout(SOON_SECS):
            heard = await reader.readuntil(ends)
        writer.transport.abort()
        return heard

    async with front(echo, tls=server) as made:
        assert await ask(made.port, GET + LAST, b"/last ") == (
            told("200 OK", b"/ ") + told("200 OK", b"/last ", "close")
        )
        assert await ask(made.port, b"x\r\n\r\n" + GET, b"malformed") == told(
            "400 Bad Request", b"the request's head is malformed", "close"
        )
        await until(lambda: not made.connections)

    handle = Waiting(b"x")
    async with front(handle, tls=server) as made:
        await ask(made.port, GET, b"x\r\n")
        async with asyncio.timeout(1):
            await handle.cancelled.wait()


async def test_it_works_over_a_unix_socket(tmp_path: Path) -> None:
    """Where a client has no address."""
    path = tmp_path / "front"
    async with front(echo, socket_path=path) as made:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(GET)
        assert await reader.readuntil(b"/ ") == told("200 OK", b"/ ")
        assert made.connection.address == ""
        writer.close()


async def test_it_is_known_where_a_client_is() -> None:
    """Where its address tells."""
    async with front(echo) as made:
        await exchange(made.port, LAST)

    assert made.taken[0].connection.address == "127.0.0.1"
