"""The end of a daemon: nothing that was said is lost, and nothing keeps it up."""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from tests.libs.cortex_uplink.fronts import GET, SOON_SECS

PROGRAM = """
import asyncio, socket
from contextlib import asynccontextmanager
from cortex_core.settings import Address
from cortex_uplink.client_writer import ClientWriter
from cortex_uplink.serving import Gate, Listener, make_app, serve

app = make_app("ending", request_max_mb=1)

async def big(request):
    transport = request.connection.transport
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ClientWriter(request).whole(200, {}, b"x" * 60_000)

async def endless(request):
    response = await request.respond()
    await response.send("begun")
    await asyncio.sleep(60)

app.add_direct_route(big, "/big", "big")
app.add_route(endless, "/endless")

@asynccontextmanager
async def nothing():
    yield

async def main():
    await serve(
        [Listener(app=app, address=Address("127.0.0.1", 0))],
        gate=Gate(), drain_secs=1, background=nothing, reload=lambda: asyncio.sleep(0),
        ready=lambda told: print(told[0].port, flush=True),
    )

asyncio.run(main())
"""


@asynccontextmanager
async def daemon() -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Start one; give it and its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            yield process, int(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_an_answer_that_is_out_is_taken_to_its_end() -> None:
    """Though the daemon ends while its client has taken little of it."""
    asyncio.run(_take_late())


async def _take_late() -> None:
    async with daemon() as (process, port):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(GET.replace(b"GET /", b"POST /big"))
            heard = client.recv(100)
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            client.settimeout(SOON_SECS)
            while more := client.recv(65536):
                heard += more
        assert await process.wait() == 0

    assert heard.endswith(b"\r\n\r\n" + b"x" * 60_000)


def test_neither_idle_clients_nor_those_that_listen_for_ever_keep_it_up() -> None:
    """Nor one that takes nothing of what there is for it."""
    asyncio.run(_stay())


async def _stay() -> None:
    async with daemon() as (process, port):
        with socket.socket() as deaf, socket.socket() as idle:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for client in (deaf, idle):
                client.connect(("127.0.0.1", port))
            deaf.sendall(GET.replace(b"GET /", b"POST /big"))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET.replace(b"/ ", b"/endless "))
            await reader.readuntil(b"begun")
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            with suppress(ConnectionResetError):
                assert not (await reader.read()).endswith(b"0\r\n\r\n")
            assert await process.wait() == 0
            writer.close()

    assert time.monotonic() - began < 4
