"""What the proxying client costs, against the one over aiohttp that it took the place of.

Run it with `python -m tests.bench.uplink --rounds 5`.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from statistics import median
from typing import Any

import aiohttp
import httpx
import uvloop
from httpx_aiohttp import AiohttpTransport

from cortex_uplink import Limits, Uplink
from tests.bench.reporting import Report, Table, spread
from tests.bench.uplink_server import CHUNKS, PACE_SECS

METHOD = """\
Processor time of the client's process alone (uvloop), in µs; the server is another process and
answers with canned bytes on loopback. request: a small JSON answer, read whole, {concurrent} at a
time on kept connections. chunk: a stream of {chunks} chunks, each written by itself, {streams} at a
time without a pause in between, or (paced) {paced} at a time with a chunk each {pace} ms; the cost
of a whole stream, its request included, over its chunks. reads: how many pieces of an answer the
client saw. {rounds} rounds, interleaved."""
CONCURRENT, STREAMS, PACED = 32, 8, 200
REQUESTS, STREAMED = 4000, 400
LIMITS = Limits(connect=5, first_byte=60, idle=60)
BODY = b'{"model":"m","messages":[{"role":"user","content":"hello"}],"stream":true}'
HEADERS = {"content-type": "application/json", "x-request-id": "req-0123456789abcdef"}

#: Asks a URL once and returns in how many pieces the answer came.
Ask = Callable[[str], Awaitable[int]]


@asynccontextmanager
async def _by_chunks() -> AsyncIterator[Ask]:
    uplink = Uplink(LIMITS)

    async def ask(url: str) -> int:
        pieces = 0
        async with uplink.open(url, body=BODY, headers=HEADERS) as answer:
            async for _ in answer.chunks():
                pieces += 1
        return pieces

    yield ask
    await uplink.aclose()


@asynccontextmanager
async def _by_relay() -> AsyncIterator[Ask]:
    uplink = Uplink(LIMITS)

    async def ask(url: str) -> int:
        pieces = 0

        def sink(_: bytes) -> None:
            nonlocal pieces
            pieces += 1

        async with uplink.open(url, body=BODY, headers=HEADERS) as answer:
            await answer.relay(sink)
        return pieces

    yield ask
    await uplink.aclose()


@asynccontextmanager
async def _by_aiohttp() -> AsyncIterator[Ask]:
    client = httpx.AsyncClient(
        transport=AiohttpTransport(client=_session),
        timeout=httpx.Timeout(connect=5, read=None, write=None, pool=None),
        trust_env=False,
    )

    async def ask(url: str) -> int:
        pieces = 0
        request = client.build_request("POST", url, content=BODY, headers=HEADERS)
        async with asyncio.timeout(LIMITS.first_byte):
            response = await client.send(request, stream=True)
        parts = aiter(response.stream)  # type: ignore[arg-type]
        try:
            while True:
                async with asyncio.timeout(LIMITS.idle):
                    await anext(parts)
                pieces += 1
        except StopAsyncIteration:
            return pieces
        finally:
            await response.aclose()

    yield ask
    await client.aclose()


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    )


CLIENTS = {
    "uplink, chunks": _by_chunks,
    "uplink, relay": _by_relay,
    "httpx over aiohttp": _by_aiohttp,
}


def measure(*, rounds: int = 5) -> Report:
    """Measure all clients."""
    names, samples = list(CLIENTS), list[dict[str, Any]]()
    with _server() as url:
        for number in range(rounds):
            turn = number % len(names)
            samples += [
                {"client": name, **uvloop.run(_round(name, url))}
                for name in (*names[turn:], *names[:turn])
            ]
    return Report(
        name="uplink",
        method=METHOD.format(
            concurrent=CONCURRENT,
            chunks=CHUNKS,
            streams=STREAMS,
            paced=PACED,
            pace=round(PACE_SECS * 1000),
            rounds=rounds,
        ),
        tables=[
            Table(
                title=f"processor time per {what}, µs",
                columns=("", "median", "least", "most", "reads"),
                rows=[
                    (
                        name,
                        *spread([one[what] for one in samples if one["client"] == name]),
                        median(one[f"{what}_reads"] for one in samples if one["client"] == name),
                    )
                    for name in names
                ],
            )
            for what in ("request", "chunk", "paced chunk")
        ],
        samples=samples,
    )


async def _round(name: str, url: str) -> dict[str, float]:
    async with CLIENTS[name]() as ask:
        await _spend(ask, f"{url}/json", CONCURRENT, 4 * CONCURRENT)
        request, request_reads = await _spend(ask, f"{url}/json", CONCURRENT, REQUESTS)
        stream, stream_reads = await _spend(ask, f"{url}/stream", STREAMS, STREAMED)
        paced, paced_reads = await _spend(ask, f"{url}/paced", PACED, PACED)
    return {
        "request": request,
        "request_reads": request_reads,
        "chunk": stream / CHUNKS,
        "chunk_reads": stream_reads,
        "paced chunk": paced / CHUNKS,
        "paced chunk_reads": paced_reads,
    }


async def _spend(ask: Ask, url: str, concurrent: int, times: int) -> tuple[float, float]:
    """Ask so many times; return microseconds and pieces of one."""
    pieces = 0

    async def some() -> None:
        nonlocal pieces
        for _ in range(times // concurrent):
            seen = await ask(url)
            pieces += seen

    began = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrent):
            group.create_task(some())
    done = times // concurrent * concurrent
    return (time.process_time() - began) * 1e6 / done, pieces / done


@contextmanager
def _server() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.uplink_server"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.stdin.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    print(measure(rounds=parser.parse_args().rounds).text())
