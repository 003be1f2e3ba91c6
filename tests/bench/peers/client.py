"""The load of streams: many connections in one process, which does as little as a client can.

    python -m tests.bench.peers.client '{"port": …, …}'

prints what it saw as JSON. Each connection asks again as soon as its answer is complete. An answer
counts when its status is 200, it ends as HTTP and as its dialect say, and no chunk is missing.
"""

import asyncio
import sys
import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self, cast

import orjson
import uvloop

from tests.bench.peers import payloads
from tests.bench.peers.tree import raise_open_files

_TAIL_BYTES = 48
#: How long answers may go on after the last one was begun.
_GRACE_SECS = 30.0
_MARK = payloads.MARK.encode()
_CUT_HEAD = b"HTTP/1.1 200"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What to do: `connections` at once for `secs`, or until `answers` were asked for where set.

    `chunks` are expected in each answer, none in one that is not streamed. Connections begin
    spread over `ramp_secs`. Of every `hang_up` answers one is left in its middle, none for 0.
    """

    port: int
    path: str = payloads.CHAT
    model: str = payloads.MODEL
    chunks: int = payloads.CHUNKS
    connections: int
    secs: float = 0.0
    answers: int = 0
    ramp_secs: float = 0.0
    hang_up: int = 0

    @property
    def request(self) -> bytes:
        """The bytes of each request."""
        body = payloads.body(
            stream=self.chunks > 0,
            model=self.model,
            chunks=self.chunks or 16,
            path=self.path,
        )
        return (
            f"POST {self.path} HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\n"
            "content-type: application/json\r\nauthorization: Bearer sk-bench\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode() + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What came back. Milliseconds; gaps are between the chunks of one stream, as they arrived.

    `reads` brought at least one chunk each: fewer than chunks when those came together.
    """

    answers: int
    chunks: int
    reads: int
    secs: float
    hung_up: int
    errors: dict[str, int]
    first_ms: dict[str, float]
    whole_ms: dict[str, float]
    gap_ms: dict[str, float]

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Return what a client has printed."""
        return cls(**orjson.loads(text))


class Record:
    """What all connections of one load have seen so far."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.request = load.request
        self.end = payloads.ENDS[load.path].encode() if load.chunks else b""
        self.until = time.perf_counter() + load.secs
        self.answers = self.begun = self.chunks = self.hung_up = 0
        self.errors: Counter[str] = Counter()
        self.first, self.whole, self.gaps = array("d"), array("d"), array("d")

    def wants_more(self) -> bool:
        """Tell whether another answer should be asked for."""
        wanted = self.load.answers
        return self.begun < wanted if wanted else time.perf_counter() < self.until


class Asking(asyncio.Protocol):
    """One connection, asking until the load is done; `ended` is set then, or when it is lost."""

    def __init__(self, record: Record) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._record = record
        self._transport: asyncio.Transport | None = None
        self._in_head, self._tail, self._length = True, b"", -1
        self._chunks, self._leaves, self._asked, self._last = 0, 0, 0.0, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Take in a piece of an answer."""
        now = time.perf_counter()
        if self._in_head:
            self._tail += data
            head, end, data = self._tail.partition(b"\r\n\r\n")
            if not end:
                return
            if not self._read_head(head.lower(), head):
                return
        record = self._record
        count = data.count(_MARK)
        if count:
            if self._chunks:
                record.gaps.append(now - self._last)
            else:
                record.first.append(now - self._asked)
            self._last = now
            self._chunks += count
            if self._leaves and self._chunks >= self._leaves:
                record.hung_up += 1
                self._end()
                return
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if self._length < 0:
            if self._tail.endswith(b"0\r\n\r\n"):
                self._whole(now)
            return
        self._length -= len(data)
        if self._length <= 0:
            self._whole(now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count an answer that was cut."""
        if not self.ended.done():
            self._fail(f"lost: {exc or 'closed'}")

    def _begin(self) -> None:
        record = self._record
        self._in_head, self._tail, self._length = True, b"", -1
        self._chunks, self._last = 0, 0.0
        leaves = record.load.hang_up and record.begun % record.load.hang_up == 0
        self._leaves = record.load.chunks // 2 if leaves else 0

    def _ask(self) -> None:
        record = self._record
        if self._transport is None or not record.wants_more():
            self._end()
            return
        record.begun += 1
        self._begin()
        self._asked = time.perf_counter()
        self._transport.write(record.request)

    def _read_head(self, head: bytes, raw: bytes) -> bool:
        if not raw.startswith(_CUT_HEAD):
            self._fail(raw.partition(b"\r\n")[0].decode("latin-1"))
            return False
        _, found, rest = head.partition(b"\r\ncontent-length:")
        self._length = int(rest.partition(b"\r\n")[0]) if found else -1
        self._in_head, self._tail = False, b""
        return True

    def _whole(self, now: float) -> None:
        record = self._record
        if self._chunks != record.load.chunks or record.end not in self._tail:
            self._fail(f"{self._chunks} of {record.load.chunks} chunks, or no end")
            return
        record.answers += 1
        record.chunks += self._chunks
        record.whole.append(now - self._asked)
        self._ask()

    def _fail(self, error: str) -> None:
        self._record.errors[error] += 1
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        if self._transport is not None:
            self._transport.close()


async def run(load: Load) -> Seen:
    """Run one load."""
    record = Record(load)
    began = time.perf_counter()

    async def one(number: int) -> None:
        await asyncio.sleep(load.ramp_secs * number / load.connections)
        # A connection that was lost, or left, is followed by another; one refused is not.
        while record.wants_more():
            try:
                _, asking = await asyncio.get_running_loop().create_connection(
                    lambda: Asking(record), "127.0.0.1", load.port
                )
            except OSError as error:
                record.errors[f"connect: {error}"] += 1
                return
            await asking.ended

    tasks = [asyncio.create_task(one(number)) for number in range(load.connections)]
    within = load.secs + load.ramp_secs + _GRACE_SECS if load.secs else None
    done, hanging = await asyncio.wait(tasks, timeout=within)
    for task in done:
        task.result()
    if hanging:
        record.errors[f"not complete {_GRACE_SECS:g} s later"] += len(hanging)
    return Seen(
        answers=record.answers,
        chunks=record.chunks,
        reads=len(record.first) + len(record.gaps),
        secs=time.perf_counter() - began,
        hung_up=record.hung_up,
        errors=dict(record.errors),
        first_ms=_percentiles(record.first),
        whole_ms=_percentiles(record.whole),
        gap_ms=_percentiles(record.gaps),
    )


def _percentiles(secs: Sequence[float]) -> dict[str, float]:
    if not secs:
        return {}
    ordered = sorted(secs)
    marks = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    last = len(ordered) - 1
    return {name: 1000 * ordered[round(last * mark)] for name, mark in marks.items()}


if __name__ == "__main__":
    raise_open_files()
    print(orjson.dumps(asdict(uvloop.run(run(Load(**orjson.loads(sys.argv[1])))))).decode())
