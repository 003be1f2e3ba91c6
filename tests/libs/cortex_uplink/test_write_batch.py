"""Writes of one turn go out at its end, each of them, in order."""

import asyncio
import gc
import ssl
import weakref

import pytest

from cortex_uplink.write_batch import MAX_HELD_BYTES, WriteBatch, write_batch
from tests.libs.cortex_uplink.peers import CERTIFICATE


async def test_writes_of_a_turn_wait_for_its_end() -> None:
    """And keep their order, between transports too."""
    batch, out = WriteBatch(asyncio.get_running_loop()), list[tuple[str, bytes]]()
    for name, data in (("a", b"1"), ("b", b"2"), ("a", b"3")):
        batch.put(lambda data, name=name: out.append((name, data)), data)  # type: ignore[misc]
    assert out == []
    await asyncio.sleep(0)

    assert out == [("a", b"1"), ("b", b"2"), ("a", b"3")]
    batch.put(lambda data: out.append(("c", data)), b"4")
    assert len(out) == 3
    await asyncio.sleep(0)
    assert out[3:] == [("c", b"4")]


async def test_much_goes_out_before_the_end() -> None:
    """So that it is known who takes no more; what is held is counted anew then."""
    batch, out = WriteBatch(asyncio.get_running_loop()), list[bytes]()
    half = b"x" * (MAX_HELD_BYTES // 2)
    for _ in range(2):
        batch.put(out.append, half)
    assert out == []
    batch.put(out.append, b"y")
    assert out == [half, half, b"y"]
    batch.put(out.append, half)
    assert len(out) == 3
    await asyncio.sleep(0)

    assert out == [half, half, b"y", half]


async def test_flushing_writes_at_once_and_once() -> None:
    """What is put while that happens is written later."""
    batch, out = WriteBatch(asyncio.get_running_loop()), list[bytes]()

    def write(data: bytes) -> None:
        out.append(data)
        if data == b"1":
            batch.put(out.append, b"3")

    batch.put(write, b"1")
    batch.put(write, b"2")
    batch.flush()
    assert out == [b"1", b"2"]
    await asyncio.sleep(0)

    assert out == [b"1", b"2", b"3"]


@pytest.mark.parametrize("error", [RuntimeError("closed"), BrokenPipeError()])
async def test_one_that_cannot_be_written_to_takes_nothing_of_the_others(error: Exception) -> None:
    """Those behind it in the same turn, above all."""
    batch, out = WriteBatch(asyncio.get_running_loop()), list[bytes]()

    def gone(_: bytes) -> None:
        raise error

    for write in (out.append, gone, out.append):
        batch.put(write, b"x")
    await asyncio.sleep(0)

    assert out == [b"x", b"x"]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_transport_that_is_gone_is_no_trouble(tls: bool) -> None:
    """Closed, aborted, and long lost: each loop has its own way to say so."""
    context = client = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        client = ssl.create_default_context(cafile=str(CERTIFICATE))
    server = await asyncio.start_server(_read, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    out: list[bytes] = []
    for how in ("close", "abort"):
        _, writer = await asyncio.open_connection("localhost", port, ssl=client)
        batch = write_batch()
        getattr(writer.transport, how)()
        for _ in range(3):
            batch.put(writer.transport.write, b"x")
            batch.put(out.append, b"y")
            await asyncio.sleep(0.01)
    server.close()

    assert out == [b"y"] * 6


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(99):
            pass
    except OSError:
        pass
    writer.close()


async def test_there_is_one_batch_for_a_loop() -> None:
    """Order among its transports would be lost otherwise."""
    assert write_batch() is write_batch()


def test_a_loop_that_has_ended_is_not_kept() -> None:
    """By what was written in it, once there is another."""

    async def run() -> "weakref.ref[asyncio.AbstractEventLoop]":
        write_batch().put(list[bytes]().append, b"x")
        return weakref.ref(asyncio.get_running_loop())

    kept = asyncio.run(run())
    asyncio.run(run())
    gc.collect()

    assert kept() is None
