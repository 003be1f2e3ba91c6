"""The rounds: every contestant under every load in turn, and what each round cost."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from tests.bench.peers import tree
from tests.bench.peers.checking import Wrong
from tests.bench.peers.client import Load
from tests.bench.peers.contestants import CONTESTANTS, Running, mock_node
from tests.bench.peers.loading import hammer, in_words, stream
from tests.bench.peers.packages import Missing, program
from tests.bench.peers.payloads import CHAT, CHUNKS, MESSAGES, MODEL, PACE_MS, PACED

STREAMS = 32
PACED_STREAMS = 200
SLOW_PACED_STREAMS = 4
MANY_STREAMS = 1000
_SLOW_TIMES = 3
_RAMP_SECS = 1.0
#: Each of the many streams is asked for once: long enough that all of them run at once.
_MANY_CHUNKS = 4 * CHUNKS
_LOOK_SECS = 0.25
_SETTLE_SECS = 10.0
#: Of one core: what a contestant without clients may use for itself.
_CALM_SHARE = 0.2
_MICRO = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One contestant under one load, once. What a load does not have is None."""

    round: int
    contestant: str
    load: str
    #: Requests answered whole, or chunks.
    units: int
    rate: float
    cpu_us: float | None
    errors: int
    said: str = ""
    p50_ms: float | None = None
    p99_ms: float | None = None
    first_p50_ms: float | None = None
    first_p99_ms: float | None = None
    first_max_ms: float | None = None
    stall_ms: float | None = None
    chunks_together: float | None = None
    peak_mib: float | None = None


@dataclass(slots=True)
class Compared:
    """Everything that was measured, and who could not take part, with the reason."""

    contestants: list[Running] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)


def compare(*, rounds: int, secs: float, tell: Callable[[str], None]) -> Compared:
    """Start everybody, measure `rounds` rounds with loads of about `secs` each, end everybody.

    `tell` hears of the progress. Raises Missing without a load generator.
    """
    tree.raise_open_files()
    program("wrk", "wrk")
    with ExitStack() as everybody:
        folder = Path(everybody.enter_context(TemporaryDirectory(prefix="cortex-bench-")))
        mock = everybody.enter_context(mock_node(folder))
        compared = Compared()
        for name, start in CONTESTANTS.items():
            tell(f"starting {name}")
            try:
                one = everybody.enter_context(start(mock, folder))
                _warm_up(one, secs)
            except (Missing, Wrong, RuntimeError) as error:
                compared.skipped[name] = str(error)
                tell(f"skipped {name}: {error}")
            else:
                compared.contestants.append(one)
        for number in range(rounds):
            turn = number % max(1, len(compared.contestants))
            for one in (*compared.contestants[turn:], *compared.contestants[:turn]):
                for load in _loads(one, secs):
                    _settle(one)
                    sample = load(number, one)
                    compared.samples.append(sample)
                    tell(f"round {number + 1}, {_in_short(sample)}")
    return compared


_Measure: TypeAlias = Callable[[int, Running], Sample]


def _loads(one: Running, secs: float) -> Iterator[_Measure]:
    longer = secs * (_SLOW_TIMES if one.slow else 1)
    paced = SLOW_PACED_STREAMS if one.slow else PACED_STREAMS
    yield partial(_requests, secs=longer)
    yield partial(_alone, secs=secs / 3)
    yield partial(_streams, load="unpaced", connections=STREAMS, secs=secs)
    yield partial(_streams, load="paced", connections=paced, secs=secs, model=PACED)
    if one.name == "cortex":
        yield partial(_streams, load="translated", connections=STREAMS, secs=secs, path=MESSAGES)
        yield partial(
            _streams,
            load="translated, paced",
            connections=paced,
            secs=secs,
            model=PACED,
            path=MESSAGES,
        )
    if one.name in {"cortex", "direct"}:
        yield partial(
            _streams,
            load="many",
            connections=MANY_STREAMS,
            secs=_MANY_CHUNKS * PACE_MS / 1000,
            model=PACED,
            chunks=_MANY_CHUNKS,
            answers=MANY_STREAMS,
        )


def _requests(number: int, one: Running, *, secs: float) -> Sample:
    with _metered(one) as spent:
        seen = hammer(one.port, secs)
    return Sample(
        round=number,
        contestant=one.name,
        load="requests",
        units=seen.answers,
        rate=seen.answers / seen.secs,
        cpu_us=spent.per(seen.answers),
        errors=seen.errors,
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        peak_mib=spent.peak_mib,
    )


def _alone(number: int, one: Running, *, secs: float) -> Sample:
    """One client that asks one thing at a time: a whole answer, then the first chunk of streams."""
    with _metered(one) as spent:
        seen = stream(Load(port=one.port, connections=1, secs=secs, chunks=0))
    first = stream(Load(port=one.port, connections=1, secs=secs, chunks=2))
    errors = {**seen.errors, **first.errors}
    return Sample(
        round=number,
        contestant=one.name,
        load="alone",
        units=seen.answers,
        rate=seen.answers / seen.secs,
        cpu_us=spent.per(seen.answers),
        errors=sum(errors.values()),
        said=in_words(errors),
        p50_ms=seen.whole_ms.get("p50"),
        p99_ms=seen.whole_ms.get("p99"),
        first_p50_ms=first.first_ms.get("p50"),
        first_p99_ms=first.first_ms.get("p99"),
        peak_mib=spent.peak_mib,
    )


def _streams(
    number: int,
    one: Running,
    *,
    load: str,
    connections: int,
    secs: float,
    model: str = MODEL,
    path: str = CHAT,
    chunks: int = CHUNKS,
    answers: int = 0,
) -> Sample:
    wanted = Load(
        port=one.port,
        path=path,
        model=model,
        chunks=chunks,
        connections=connections,
        secs=secs,
        answers=answers,
        ramp_secs=_RAMP_SECS if model == PACED else 0.0,
    )
    with _metered(one) as spent:
        seen = stream(wanted)
    late = seen.gap_ms.get("max")
    return Sample(
        round=number,
        contestant=one.name,
        load=load,
        units=seen.chunks,
        rate=seen.chunks / seen.secs,
        cpu_us=spent.per(seen.chunks),
        errors=sum(seen.errors.values()),
        said=in_words(seen.errors),
        p50_ms=seen.gap_ms.get("p50"),
        p99_ms=seen.gap_ms.get("p99"),
        first_p50_ms=seen.first_ms.get("p50"),
        first_p99_ms=seen.first_ms.get("p99"),
        first_max_ms=seen.first_ms.get("max"),
        stall_ms=max(0.0, late - PACE_MS) if late is not None and model == PACED else None,
        chunks_together=seen.chunks / seen.reads if seen.reads else None,
        peak_mib=spent.peak_mib,
    )


@dataclass(slots=True)
class _Spent:
    """What a contestant took while a load ran; without a process nothing is known."""

    cpu_secs: float | None = None
    peak_mib: float | None = None

    def per(self, units: int) -> float | None:
        """Return the processor microseconds of each unit."""
        return None if self.cpu_secs is None or not units else self.cpu_secs * _MICRO / units


@contextmanager
def _metered(one: Running) -> Iterator[_Spent]:
    spent = _Spent()
    if one.pid is None:
        yield spent
        return
    pid, over = one.pid, threading.Event()

    def look() -> None:
        peak = tree.rss_mib(pid)
        while not over.wait(_LOOK_SECS):
            peak = max(peak, tree.rss_mib(pid))
        spent.peak_mib = peak

    looking = threading.Thread(target=look)
    before = tree.cpu_secs(pid)
    looking.start()
    try:
        yield spent
    finally:
        spent.cpu_secs = tree.cpu_secs(pid) - before
        over.set()
        looking.join()


def _settle(one: Running) -> None:
    """Wait until a contestant has done with what its last clients left behind."""
    if one.pid is None:
        return
    deadline = time.monotonic() + _SETTLE_SECS
    busy = _CALM_SHARE
    while busy >= _CALM_SHARE and time.monotonic() < deadline:
        before = tree.cpu_secs(one.pid)
        time.sleep(_LOOK_SECS)  # the length of one look
        busy = (tree.cpu_secs(one.pid) - before) / _LOOK_SECS


def _warm_up(one: Running, secs: float) -> None:
    """Have everything imported, compiled, connected and cached."""
    for load in (
        Load(port=one.port, connections=2 if one.slow else STREAMS, secs=secs / 3, chunks=0),
        Load(port=one.port, connections=2 if one.slow else STREAMS, secs=secs / 3),
    ):
        seen = stream(load)
        if seen.errors or not seen.answers:
            raise Wrong(f"it fails under load: {in_words(seen.errors)}")


def _in_short(sample: Sample) -> str:
    cpu = "" if sample.cpu_us is None else f", {sample.cpu_us:.1f} µs each"
    wrong = f", {sample.errors} errors: {sample.said}" if sample.errors else ""
    return f"{sample.contestant}, {sample.load}: {sample.rate:.0f}/s{cpu}{wrong}"
