"""`flatness`: whether cortex's memory stays where it is over many small requests."""

import sys
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.peers import tree
from tests.bench.peers.client import Load
from tests.bench.peers.comparison import STREAMS
from tests.bench.peers.contestants import cortex, mock_node
from tests.bench.peers.loading import in_words, stream
from tests.bench.peers.plots import draw_memory
from tests.bench.reporting import Cell, Report, Table

POINTS = 10
#: So much is no growth: an allocator's own ups and downs.
FLAT_MIB = 4.0
#: Until here pools and caches fill.
_SETTLED_AT = 2
METHOD = """\
{requests} small requests, {streams} at a time, one in ten of them streamed, before the mock node;
resident memory of cortex's process tree after each tenth. Flat: the last is at most {flat:g} MiB
above the one after {settled} tenths."""


def measure(*, requests: int, plots: Path) -> Report:
    """Drive `requests` through cortex and look at its memory on the way."""
    errors: dict[str, int] = {}
    with TemporaryDirectory(prefix="cortex-bench-") as name:
        folder = Path(name)
        with mock_node(folder) as mock, cortex(mock, folder) as running:
            assert running.pid is not None
            seen = [tree.held(running.pid)]
            for point in range(POINTS):
                print(f"{point} of {POINTS}: {seen[-1].rss_mib:.1f} MiB", file=sys.stderr)
                size = requests // POINTS
                for load in (
                    Load(
                        port=running.port, connections=STREAMS, answers=size - size // 10, chunks=0
                    ),
                    Load(port=running.port, connections=STREAMS, answers=size // 10, chunks=4),
                ):
                    for error, count in stream(load).errors.items():
                        errors[error] = errors.get(error, 0) + count
                seen.append(tree.held(running.pid))
    growth = seen[-1].rss_mib - seen[_SETTLED_AT].rss_mib
    counts = [0, *accumulate([requests // POINTS] * POINTS)]
    rows: list[tuple[Cell, ...]] = [
        (str(count), round(one.rss_mib, 1), one.files, one.threads)
        for count, one in zip(counts, seen, strict=True)
    ]
    verdict = "pass" if growth <= FLAT_MIB and not errors else "FAIL"
    told = (f"growth, MiB (errors: {in_words(errors)})", growth, f"≤ {FLAT_MIB:g}", verdict)
    picture = draw_memory(
        f"cortex, {requests} requests",
        counts,
        [one.rss_mib for one in seen],
        plots / "flatness.png",
    )
    method = METHOD.format(requests=requests, streams=STREAMS, flat=FLAT_MIB, settled=_SETTLED_AT)
    return Report(
        name="flatness",
        method=f"{method}\nPicture: {picture}",
        tables=[
            Table(title="held", columns=("requests", "rss MiB", "files", "threads"), rows=rows),
            Table(title="target", columns=("target", "reached", "bound", "verdict"), rows=[told]),
        ],
    )
