"""A long run of streams through one cortex: does it grow?

    python -m tests.bench.peers.soak --minutes 30

Laps of clients that stream in both dialects, some of whom hang up in the middle, and of clients
that do not stream. After each lap, once it is quiet, cortex must hold what it held before: memory,
files, sockets, threads, requests in flight. Exits 1 when it does not.
"""

import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import typer

from tests.bench.machine import header
from tests.bench.peers import tree
from tests.bench.peers.client import Load
from tests.bench.peers.contestants import Running, cortex, mock_node
from tests.bench.peers.flatness import FLAT_MIB
from tests.bench.peers.loading import in_words, stream
from tests.bench.peers.payloads import MESSAGES, PACED
from tests.bench.peers.plots import draw_memory
from tests.bench.reporting import Cell, Report, Table
from tests.fleet.processes import NeverHappened, eventually

LAP_SECS = 30.0
PASSED, TRANSLATED, WHOLE = 60, 20, 2
#: Pools keep a connection that nobody uses for about half of this.
QUIET_SECS = 60.0
METHOD = """\
{minutes:g} minutes in laps of {lap:g} s: {passed} paced streams and {translated} as /v1/messages at
a time, one in five and one in seven left by its client in the middle, and {whole} clients without
streams. Looked at after each lap. Growth of memory: its straight line over the laps of the last two
thirds. Sockets, files and threads: at the end, with no client for up to {quiet:g} s, against the
start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """What cortex held after a lap, and what its clients saw."""

    minutes: float
    held: tree.Held
    answers: int
    hung_up: int


def soak(*, minutes: float, plots: Path) -> tuple[Report, bool]:
    """Run for so long; return the report, and whether nothing grew."""
    errors: Counter[str] = Counter()
    with TemporaryDirectory(prefix="cortex-soak-") as name:
        folder = Path(name)
        with mock_node(folder) as mock, cortex(mock, folder) as running:
            assert running.pid is not None
            before = _quiet(running, None)
            laps = list[Lap]()
            began = time.monotonic()
            while time.monotonic() - began < 60 * minutes:
                laps.append(_lap(running, began, errors))
                print(_line(laps[-1]), file=sys.stderr)
            after = _quiet(running, before)
            left = _in_flight(running)
    slope, growth = _growth(laps)
    judged: list[tuple[str, float, float]] = [
        ("memory over the last two thirds, MiB", growth, FLAT_MIB),
        ("sockets left behind", after.sockets - before.sockets, 0),
        ("files left behind", after.files - before.files, 0),
        ("threads left behind", after.threads - before.threads, 1),
        ("requests in flight at the end", left, 0),
        ("errors", errors.total(), 0),
    ]
    rows = [(_row(lap)) for lap in laps]
    told: list[tuple[Cell, ...]] = [
        (what, value, f"≤ {most:g}", "pass" if value <= most else "FAIL")
        for what, value, most in judged
    ]
    picture = draw_memory(
        f"cortex, {minutes:g} minutes",
        [lap.minutes for lap in laps],
        [lap.held.rss_mib for lap in laps],
        plots / "soak.png",
    )
    method = METHOD.format(
        minutes=minutes,
        lap=LAP_SECS,
        passed=PASSED,
        translated=TRANSLATED,
        whole=WHOLE,
        quiet=QUIET_SECS,
    )
    columns = ("minute", "rss MiB", "sockets", "files", "threads", "answers", "hung up")
    report = Report(
        name="soak",
        method=f"{method}\nSlope: {slope:.2f} MiB an hour. Errors: {in_words(errors)}. {picture}",
        tables=[
            Table(title="laps", columns=columns, rows=rows),
            Table(title="targets", columns=("target", "reached", "bound", "verdict"), rows=told),
        ],
    )
    return report, all(value <= most for _, value, most in judged)


def _lap(running: Running, began: float, errors: Counter[str]) -> Lap:
    assert running.pid is not None
    port = running.port
    loads = (
        Load(port=port, model=PACED, connections=PASSED, secs=LAP_SECS, ramp_secs=1, hang_up=5),
        Load(
            port=port,
            path=MESSAGES,
            model=PACED,
            connections=TRANSLATED,
            secs=LAP_SECS,
            ramp_secs=1,
            hang_up=7,
        ),
        Load(port=port, chunks=0, connections=WHOLE, secs=LAP_SECS),
    )
    with ThreadPoolExecutor(len(loads)) as threads:
        seen = list(threads.map(stream, loads))
    for one in seen:
        errors.update(one.errors)
    return Lap(
        minutes=(time.monotonic() - began) / 60,
        held=tree.held(running.pid),
        answers=sum(one.answers for one in seen),
        hung_up=sum(one.hung_up for one in seen),
    )


def _quiet(running: Running, as_before: tree.Held | None) -> tree.Held:
    """Return what cortex holds without clients, as soon as it is no more than `as_before`."""
    assert running.pid is not None
    pid = running.pid
    if as_before is not None:
        most = as_before
        with suppress(NeverHappened):  # the verdict says so
            eventually(lambda: tree.held(pid).files <= most.files, within=QUIET_SECS, every=1.0)
    return tree.held(pid)


def _in_flight(running: Running) -> int:
    answer = httpx.get(f"http://127.0.0.1:{running.port}/fleet", trust_env=False)
    requests = answer.json()["requests"]
    return int(requests["in_flight"] + requests["waiting"])


def _growth(laps: list[Lap]) -> tuple[float, float]:
    """Return MiB an hour, and MiB over the laps of the last two thirds."""
    settled = laps[len(laps) // 3 :]
    if len(settled) < 2:
        return 0.0, 0.0
    slope, _ = linear_regression(
        [lap.minutes for lap in settled], [lap.held.rss_mib for lap in settled]
    )
    return 60 * slope, slope * (settled[-1].minutes - settled[0].minutes)


def _row(lap: Lap) -> tuple[Cell, ...]:
    held = lap.held
    return (
        f"{lap.minutes:.1f}",
        held.rss_mib,
        held.sockets,
        held.files,
        held.threads,
        lap.answers,
        lap.hung_up,
    )


def _line(lap: Lap) -> str:
    held = lap.held
    return f"minute {lap.minutes:.1f}: {held.rss_mib:.1f} MiB, {held.sockets} sockets"


def main(
    *,
    minutes: Annotated[float, typer.Option(min=0.1)] = 30.0,
    plots: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("build/bench"),
) -> None:
    """Stream for a while and see whether cortex grows."""
    report, flat = soak(minutes=minutes, plots=plots)
    print("\n".join(f"{name:9} {value}" for name, value in header().items()))
    print(f"\n{report.text()}")
    raise typer.Exit(0 if flat else 1)


if __name__ == "__main__":
    typer.run(main)
