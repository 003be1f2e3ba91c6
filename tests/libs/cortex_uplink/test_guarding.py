"""Clients that dawdle, crowd or stop listening lose their connection; nobody else notices."""

import asyncio
import resource
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from typing import Any

import pytest
from sanic import HTTPResponse, Request

from cortex_uplink import guarding
from cortex_uplink.client_connection import ClientConnection
from cortex_uplink.envelopes import answer
from cortex_uplink.guarding import most_connections, raise_descriptor_limit
from cortex_uplink.lean_app import start_server
from cortex_uplink.serving import make_app
from tests.fleet.processes import free_port
from tests.libs.cortex_uplink.peers import CERTIFICATE

HEAD = b"POST /echo HTTP/1.1\r\nhost: x\r\n"


@asynccontextmanager
async def server(
    echo: Callable[[Request], Coroutine[Any, Any, HTTPResponse | None]] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    """Serve `/echo` on a free loopback port."""

    async def length(request: Request) -> HTTPResponse:
        return answer(len(request.body))

    app = make_app("guarded", request_max_mb=1)
    app.add_route(echo or length, "/echo", methods=["POST"])
    port = free_port()
    connections: set[ClientConnection] = set()
    listener = socket.create_server(("127.0.0.1", port))
    listener.setblocking(False)
    made = await start_server(app, listener, connections, tls)
    try:
        yield port
    finally:
        for connection in list(connections):
            connection.abort()
        made.close()
        await made.wait_closed()


async def dawdle(port: int, begin: bytes, drop: bytes) -> bytes:
    """Send `drop` again and again, until there is an answer; return that."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begin)
    answered = asyncio.create_task(reader.read(65536))
    async with asyncio.timeout(5):
        while not answered.done():
            writer.write(drop)
            await asyncio.wait({answered}, timeout=0.02)
    with closing(writer):
        return answered.result()


@pytest.mark.parametrize(
    ("begin", "drop"),
    [
        (HEAD + b"x: ", b"y"),
        (HEAD + b"content-length: 100000\r\n\r\n", b" "),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (HEAD + b"content-length: 100000\r\n\r\n", b""),
    ],
    ids=["head", "body", "chunks", "silent body"],
)
async def test_a_request_has_to_come_in_time(
    monkeypatch: pytest.MonkeyPatch, begin: bytes, drop: bytes
) -> None:
    """However often it shows that it is alive."""
    for name in ("HEAD_SECS", "BODY_SECS"):
        monkeypatch.setattr(guarding, name, 0.2)
    async with server() as port:
        began = time.monotonic()
        heard = await dawdle(port, begin, drop)

    assert heard.startswith(b"HTTP/1.1 400 ")
    assert b"did not come in time" in heard
    assert b"connection: close" in heard
    assert time.monotonic() - began < 2


async def test_a_handshake_has_to_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then a connection counts nowhere."""
    monkeypatch.setattr(guarding, "HANDSHAKE_SECS", 0.2)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    async with server(tls=context) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_a_body_that_keeps_pace_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is given by the byte."""
    monkeypatch.setattr(guarding, "BODY_SECS", 0.1)
    async with server() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"content-length: 6000\r\n\r\n")
        for _ in range(6):
            writer.write(b"x" * 1000)
            await asyncio.sleep(0.06)
        heard = await reader.read(65536)
        writer.close()

    assert heard.startswith(b"HTTP/1.1 200 ")
    assert heard.endswith(b"6000")


async def test_the_rest_of_a_refused_body_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its sender hears why, and has a moment to stop."""
    monkeypatch.setattr(guarding, "DISCARD_SECS", 0.1)
    async with server() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"content-length: 9000000\r\n\r\n{")
        async with asyncio.timeout(3):
            heard = await reader.read()
        writer.close()

    assert heard.startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_takes_nothing_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handler is cancelled, as if it had left."""
    monkeypatch.setattr(guarding, "STALL_SECS", 0.2)
    cancelled = asyncio.Event()

    async def flood(request: Request) -> None:
        response = await request.respond(content_type="text/plain")
        try:
            while True:
                await response.send(b"x" * 65536)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with server(flood) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(HEAD + b"content-length: 0\r\n\r\n")
        async with asyncio.timeout(5):
            await cancelled.wait()
        writer.close()


async def test_connections_beyond_the_limit_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And taken again once others have left."""
    monkeypatch.setattr(guarding, "most_connections", lambda: 2)

    async def ask(port: int) -> tuple[bytes, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"content-length: 0\r\n\r\n")
        try:
            return await reader.read(65536), writer
        except ConnectionResetError:
            return b"", writer

    async with server() as port:
        held = [await ask(port) for _ in range(3)]
        for _, writer in held:
            writer.close()
            await asyncio.wait({asyncio.ensure_future(writer.wait_closed())})
        again, last = await ask(port)
        last.close()

    assert [bool(heard) for heard, _ in held] == [True, True, False]
    assert again.startswith(b"HTTP/1.1 200 ")


def test_descriptors_remain_for_the_other_side() -> None:
    """A quarter of as many as we may have."""
    raise_descriptor_limit()
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)

    assert 0 < most_connections() <= soft * 3 // 4
