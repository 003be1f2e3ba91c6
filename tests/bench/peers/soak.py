"""A long run of a bad day through one cortex: does it grow?

    python -m tests.bench.peers.soak --minutes 30

Laps of clients that stream in both dialects, some of whom hang up in the middle, of clients that do
not stream, and of awkward ones (`awkward`). In every other lap one of the two nodes, by turns, is
killed and started again. Cortex must hold at the end what it held at the start: files, sockets,
threads, tasks, requests in flight; and its memory must not grow from lap to lap. Exits 1 when it
does, or when a client got what it should not.
"""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import typer

from tests.bench.machine import header
from tests.bench.peers import tree
from tests.bench.peers.awkward import AwkwardClients
from tests.bench.peers.client import Load
from tests.bench.peers.flatness import FLAT_MIB
from tests.bench.peers.loading import in_words, stream
from tests.bench.peers.mortal_node import MortalNode, mortal_node
from tests.bench.peers.payloads import MESSAGES, MODEL, PACED
from tests.bench.peers.plots import draw_memory
from tests.bench.reporting import Cell, Report, Table
from tests.fleet.processes import Daemon, NeverHappened, eventually, workbench

LAP_SECS = 20.0
PASSED, TRANSLATED, WHOLE = 60, 20, 2
#: When in a lap a node dies, and how long it stays away.
DIES_AFTER_SECS, AWAY_SECS = 5.0, 6.0
#: Pools keep a connection that nobody uses for about half of this.
QUIET_SECS = 60.0
#: Fewer laps than these say nothing of growth: pools and caches fill in the first ones.
FEWEST_LAPS = 9
#: What a client may get from a node that dies: a refusal, or a stream that says so at its end.
_OF_AN_OUTAGE = ("HTTP/1.1 503", "chunks, or no end")
METHOD = """\
{minutes:g} minutes in laps of {lap:g} s, two mock nodes: {passed} paced streams and {translated} as
/v1/messages at a time, one in five and one in seven left by its client in the middle, {whole}
clients without streams, and five awkward ones. In every other lap a node, by turns, is killed and
comes back {away:g} s later; what is lost with it ends in an error event or a 503, and that is no
error here. Growth of memory: its straight line over the laps of the last two thirds. Sockets,
files, threads and tasks: at the end, with no client for up to {quiet:g} s, against the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What cortex holds: of its process, of its event loop, and of requests."""

    process: tree.Held
    tasks: int
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """What cortex held after a lap, and what its clients saw; `lost` by a node that died."""

    minutes: float
    held: Holding
    answers: int
    hung_up: int
    lost: int
    awkward: int


@dataclass(slots=True)
class Scene:
    """A cortex in front of two nodes, one of which dies now and then."""

    cortex: Daemon
    metrics_url: str
    nodes: tuple[MortalNode, ...]
    errors: Counter[str] = field(default_factory=Counter)

    def holding(self) -> Holding:
        """Return what cortex holds now."""
        text = httpx.get(self.metrics_url, trust_env=False).text
        (tasks,) = (line for line in text.splitlines() if line.startswith("cortex_tasks "))
        fleet = httpx.get(f"{self.cortex.url}/fleet", trust_env=False).json()
        return Holding(
            process=tree.held(self.cortex.pid),
            tasks=int(float(tasks.split()[1])),
            requests=sum(fleet["requests"].values()),
        )

    def quiet(self, most: Holding) -> Holding:
        """Return what cortex holds without clients, as soon as it is no more than `most`."""
        with suppress(NeverHappened):  # the verdict says so
            eventually(
                lambda: (
                    (now := self.holding()).process.files <= most.process.files
                    and now.tasks <= most.tasks
                ),
                within=QUIET_SECS,
                every=1.0,
            )
        return self.holding()

    def both_nodes(self) -> bool:
        """Tell whether cortex can reach both."""
        health = httpx.get(f"{self.cortex.url}/health", trust_env=False).json()
        return bool(health["nodes"]["healthy"] == 2)


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Set it up; everything has ended afterwards."""
    models = [{"id": model, "source": f"bench/{model}"} for model in (MODEL, PACED)]
    with (
        mortal_node(folder, "n1") as first,
        mortal_node(folder, "n2") as second,
        workbench(folder) as bench,
    ):
        cortex = bench.cortex({"n1": first.url, "n2": second.url}, models)
        yield Scene(cortex, bench.metrics_url(cortex), (first, second))


def soak(*, minutes: float, plots: Path) -> tuple[Report, bool]:
    """Run for so long; return the report, and whether nothing grew and nobody was wronged."""
    with TemporaryDirectory(prefix="cortex-soak-") as name, scene(Path(name)) as made:
        before = made.holding()
        laps = list[Lap]()
        began = time.monotonic()
        while time.monotonic() - began < 60 * minutes:
            # All clients begin the same conversation: one node has it, until that one dies.
            dies = made.nodes[len(laps) // 2 % 2] if len(laps) % 2 else None
            laps.append(_lap(made, began, dies))
            print(_line(laps[-1]), file=sys.stderr)
        after = made.quiet(before)
    slope, growth = _growth(laps)
    judged: list[tuple[str, float, float]] = [
        ("sockets left behind", after.process.sockets - before.process.sockets, 0),
        ("files left behind", after.process.files - before.process.files, 0),
        ("threads left behind", after.process.threads - before.process.threads, 1),
        ("tasks left behind", after.tasks - before.tasks, 0),
        ("requests in flight at the end", after.requests, 0),
        ("errors", made.errors.total(), 0),
    ]
    told: list[tuple[Cell, ...]] = [
        (what, value, f"≤ {most:g}", "pass" if value <= most else "FAIL")
        for what, value, most in judged
    ]
    long_enough = len(laps) >= FEWEST_LAPS
    flat = growth <= FLAT_MIB or not long_enough
    verdict = "pass" if flat else "FAIL"
    told.insert(
        0,
        (
            "memory over the last two thirds, MiB",
            growth,
            f"≤ {FLAT_MIB:g}",
            verdict if long_enough else "too short to tell",
        ),
    )
    picture = draw_memory(
        f"cortex, {minutes:g} minutes",
        [lap.minutes for lap in laps],
        [lap.held.process.rss_mib for lap in laps],
        plots / "soak.png",
    )
    method = METHOD.format(
        minutes=minutes,
        lap=LAP_SECS,
        passed=PASSED,
        translated=TRANSLATED,
        whole=WHOLE,
        away=AWAY_SECS,
        quiet=QUIET_SECS,
    )
    report = Report(
        name="soak",
        method=(
            f"{method}\nSlope: {slope:.2f} MiB an hour. Errors: {in_words(made.errors)}. {picture}"
        ),
        tables=[
            Table(title="laps", columns=COLUMNS, rows=[_row(lap) for lap in laps]),
            Table(title="targets", columns=("target", "reached", "bound", "verdict"), rows=told),
        ],
    )
    return report, flat and all(value <= most for _, value, most in judged)


def _lap(made: Scene, began: float, dies: MortalNode | None) -> Lap:
    port = int(made.cortex.url.rpartition(":")[2])
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
    lost = 0
    with (
        AwkwardClients(made.cortex.url) as awkward,
        ThreadPoolExecutor(len(loads)) as threads,
        nullcontext() if dies is None else _outage(made, dies),
    ):
        seen = list(threads.map(stream, loads))
    for one in seen:
        for error, count in one.errors.items():
            if dies is not None and any(part in error for part in _OF_AN_OUTAGE):
                lost += count
            else:
                made.errors[error] += count
    made.errors.update(awkward.wrong)
    return Lap(
        minutes=(time.monotonic() - began) / 60,
        held=made.holding(),
        answers=sum(one.answers for one in seen),
        hung_up=sum(one.hung_up for one in seen),
        lost=lost,
        awkward=awkward.done.total(),
    )


@contextmanager
def _outage(made: Scene, node: MortalNode) -> Iterator[None]:
    """Have a node die and come back meanwhile; cortex knows that it is there again at the end."""

    def die_and_come_back() -> None:
        time.sleep(DIES_AFTER_SECS)
        node.kill()
        time.sleep(AWAY_SECS)
        node.start()

    fate = threading.Thread(target=die_and_come_back)
    fate.start()
    try:
        yield
    finally:
        fate.join()
    try:
        eventually(made.both_nodes, within=15.0, every=0.2)
    except NeverHappened:
        made.errors["a node that came back was not found"] += 1


def _growth(laps: list[Lap]) -> tuple[float, float]:
    """Return MiB an hour, and MiB over the laps of the last two thirds."""
    settled = laps[len(laps) // 3 :]
    if len(settled) < 2:
        return 0.0, 0.0
    slope, _ = linear_regression(
        [lap.minutes for lap in settled], [lap.held.process.rss_mib for lap in settled]
    )
    return 60 * slope, slope * (settled[-1].minutes - settled[0].minutes)


COLUMNS = (
    "minute", "rss MiB", "sockets", "files", "threads", "tasks", "answers", "hung up", "lost",
    "awkward",
)  # fmt: skip


def _row(lap: Lap) -> tuple[Cell, ...]:
    held = lap.held.process
    return (
        f"{lap.minutes:.1f}",
        held.rss_mib,
        held.sockets,
        held.files,
        held.threads,
        lap.held.tasks,
        lap.answers,
        lap.hung_up,
        lap.lost,
        lap.awkward,
    )


def _line(lap: Lap) -> str:
    held = lap.held.process
    return (
        f"minute {lap.minutes:.1f}: {held.rss_mib:.1f} MiB, {held.sockets} sockets, "
        f"{lap.held.tasks} tasks"
    )


def main(
    *,
    minutes: Annotated[float, typer.Option(min=0.1)] = 30.0,
    plots: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("build/bench"),
) -> None:
    """Let cortex have a bad day for so long, and see whether it grows."""
    report, flat = soak(minutes=minutes, plots=plots)
    print("\n".join(f"{name:9} {value}" for name, value in header().items()))
    print(f"\n{report.text()}")
    raise typer.Exit(0 if flat else 1)


if __name__ == "__main__":
    typer.run(main)
