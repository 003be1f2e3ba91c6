"""What an engine's answer about its health is taken for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from cortex_neuron.engine_health import HealthCheck
from cortex_neuron.hanging import Answer
from cortex_uplink import Limits, Uplink
from tests.apps.cortex_neuron.desk import FakeEngine
from tests.fleet.processes import free_port


@asynccontextmanager
async def engine_saying(reply: bytes) -> AsyncIterator[FakeEngine]:
    """An engine that answers everything with these bytes and closes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /health ")
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    engine = FakeEngine()
    engine.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield engine


async def asked(engine: FakeEngine) -> Answer:
    """Ask it."""
    uplink = Uplink(Limits(connect=1, first_byte=1, idle=1), keep_alive=False)
    try:
        return await HealthCheck(uplink)(engine)
    finally:
        await uplink.aclose()


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (b"200 OK", Answer.WELL),
        (b"404 Not Found", Answer.WELL),
        (b"401 Unauthorized", Answer.WELL),
        (b"500 Oh", Answer.UNWELL),
        (b"503 Oh", Answer.UNWELL),
    ],
)
async def test_any_answer_but_a_failure_is_a_sign_of_life(status: bytes, answer: Answer) -> None:
    """An engine without such a route is not hung for it."""
    async with engine_saying(b"HTTP/1.1 %s\r\ncontent-length: 2\r\n\r\nhi" % status) as engine:
        assert await asked(engine) is answer


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH\r\n"])
async def test_what_is_no_answer_is_none(reply: bytes) -> None:
    """Closed at once, or nonsense."""
    async with engine_saying(reply) as engine:
        assert await asked(engine) is Answer.NONE


async def test_nobody_there_is_no_answer() -> None:
    """Nothing listens."""
    engine = FakeEngine()
    engine.url = f"http://127.0.0.1:{free_port()}"

    assert await asked(engine) is Answer.NONE
