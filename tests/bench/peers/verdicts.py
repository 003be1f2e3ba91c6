"""What the rounds say: a table for each question, and every target with what was reached."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from tests.bench.peers.comparison import MANY_STREAMS, PACED_STREAMS, Compared, Sample
from tests.bench.peers.loading import WRK_CONNECTIONS
from tests.bench.reporting import Cell, Table

ROUTERS = ("vllm-router", "sglang-router")
_CPU_LOADS = ("requests", "unpaced", "paced", "translated", "translated, paced")

Value = Callable[[Sample], float | None]


@dataclass(frozen=True, slots=True)
class Results:
    """The samples, by contestant and load, in the order of the rounds."""

    compared: Compared

    def values(self, contestant: str, load: str, value: Value) -> list[float]:
        """Return one value of each round, those that have it."""
        found = (value(one) for one in self.of(contestant, load))
        return [one for one in found if one is not None]

    def of(self, contestant: str, load: str) -> list[Sample]:
        """Return the samples of one contestant under one load."""
        return [
            one
            for one in self.compared.samples
            if one.contestant == contestant and one.load == load
        ]

    def names(self) -> list[str]:
        """Return the contestants that took part."""
        return [one.name for one in self.compared.contestants]


def tables(compared: Compared) -> list[Table]:
    """Return everything a reader wants to see, the targets last."""
    results = Results(compared)
    return [
        _who(compared),
        _cpu(results),
        _rates(results),
        _added(results),
        _streams(results),
        _many(results),
        _targets(results),
    ]


def cpu_us(sample: Sample) -> float | None:
    """Return the processor microseconds of a request or a chunk."""
    return sample.cpu_us


def rate(sample: Sample) -> float | None:
    """Return requests or chunks in a second."""
    return sample.rate


def _who(compared: Compared) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (one.name, one.version, one.passes) for one in compared.contestants
    ]
    rows += [(name, "skipped", reason) for name, reason in compared.skipped.items()]
    columns = ("contestant", "version", "passes on, of the node's payload")
    return Table(title="who took part", columns=columns, rows=rows)


def _cpu(results: Results) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (name, *(_cell(results.values(name, load, cpu_us)) for load in _CPU_LOADS))
        for name in results.names()
        if name != "direct"
    ]
    columns = ("contestant", "request", *(f"chunk {load}" for load in _CPU_LOADS[1:]))
    return Table(title="CPU, µs: median (min–max) of the rounds", columns=columns, rows=rows)


def _rates(results: Results) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            _cell(results.values(name, "requests", rate), digits=0),
            _cell(results.values(name, "requests", lambda one: one.p50_ms), digits=2),
            _cell(results.values(name, "requests", lambda one: one.p99_ms), digits=2),
            _cell(results.values(name, "unpaced", rate), digits=0),
            _cell(results.values(name, "unpaced", lambda one: one.chunks_together)),
            _cell(_peaks(results, name), digits=0),
        )
        for name in results.names()
    ]
    columns = (
        "contestant",
        "requests/s",
        "p50 ms",
        "p99 ms",
        "unpaced chunks/s",
        "chunks a read",
        "peak MiB, paced",
    )
    title = f"throughput: {WRK_CONNECTIONS} connections, as fast as it goes"
    return Table(title=title, columns=columns, rows=rows)


def _added(results: Results) -> Table:
    """What a proxy adds: the median over the rounds of (through it - direct)."""
    values: dict[str, Value] = {
        "p50": lambda one: one.p50_ms,
        "p99": lambda one: one.p99_ms,
        "first chunk p50": lambda one: one.first_p50_ms,
        "first chunk p99": lambda one: one.first_p99_ms,
    }
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            *(
                _cell(_by_round(results, (name, "alone"), ("direct", "alone"), value, _less), 2)
                for value in values.values()
            ),
        )
        for name in results.names()
        if name != "direct"
    ]
    title = "latency added, ms: one client, one request at a time"
    return Table(title=title, columns=("contestant", *values), rows=rows)


def _streams(results: Results) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            _cell(results.values(name, "paced", rate), digits=0),
            _cell(results.values(name, "paced", lambda one: one.p50_ms)),
            _cell(results.values(name, "paced", lambda one: one.p99_ms)),
            _cell(results.values(name, "paced", lambda one: one.stall_ms)),
            _cell(results.values(name, "paced", lambda one: one.chunks_together), digits=2),
            sum(one.errors for one in results.compared.samples if one.contestant == name),
        )
        for name in results.names()
    ]
    columns = (
        "contestant",
        "chunks/s",
        "gap p50 ms",
        "gap p99 ms",
        "worst stall ms",
        "chunks a read",
        "errors",
    )
    title = f"{PACED_STREAMS} paced streams (LiteLLM: fewer); errors are those of all loads"
    return Table(title=title, columns=columns, rows=rows)


def _many(results: Results) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            sum(one.errors for one in results.of(name, "many")),
            _cell(results.values(name, "many", lambda one: one.stall_ms)),
            _cell(results.values(name, "many", lambda one: one.p99_ms)),
            _cell(results.values(name, "many", lambda one: one.first_p50_ms)),
            _cell(results.values(name, "many", lambda one: one.first_max_ms)),
            _cell(results.values(name, "many", lambda one: one.peak_mib)),
        )
        for name in ("direct", "cortex")
        if results.of(name, "many")
    ]
    columns = (
        "contestant",
        "errors",
        "worst stall ms",
        "gap p99 ms",
        "first chunk p50 ms",
        "first chunk worst ms",
        "peak MiB",
    )
    title = f"{MANY_STREAMS} paced streams at once"
    return Table(title=title, columns=columns, rows=rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something to reach: what was, and the bound on its median. No values: not measured."""

    what: str
    values: Sequence[float]
    limit: float
    at_least: bool = False
    #: Not the median is judged but the worst.
    worst: bool = False

    def row(self) -> tuple[Cell, ...]:
        """Return the target as a row."""
        bound = f"{'≥' if self.at_least else '≤'} {self.limit:g}"
        if not self.values:
            return (self.what, None, bound, "not measured")
        judged = max(self.values) if self.worst else median(self.values)
        reached = judged >= self.limit if self.at_least else judged <= self.limit
        return (self.what, _cell(self.values, digits=2), bound, "pass" if reached else "FAIL")


def targets(results: Results) -> Iterator[Target]:
    """Yield every target."""
    for load, unit, limit in (
        ("requests", "request", 1.25),
        ("unpaced", "chunk, unpaced", 0.7),
        ("paced", "chunk, paced", 1.0),
    ):
        router = _better_router(results, load)
        yield Target(
            what=f"CPU per {unit}: cortex ÷ {router or 'the better Rust router'}",
            values=_ratios(results, ("cortex", load), (router or "", load)),
            limit=limit,
        )
    for load, unit in (("requests", "request"), ("unpaced", "chunk, unpaced")):
        yield Target(
            what=f"CPU per {unit}: LiteLLM ÷ cortex",
            values=_ratios(results, ("LiteLLM", load), ("cortex", load)),
            limit=20,
            at_least=True,
        )
    for load in ("unpaced", "paced"):
        translated = "translated" if load == "unpaced" else "translated, paced"
        yield Target(
            what=f"CPU per chunk, {load}: translated ÷ passed through",
            values=_ratios(results, ("cortex", translated), ("cortex", load)),
            limit=2.5,
        )
    errors: Value = lambda one: float(one.errors)  # noqa: E731  # a name for what the rows read
    many: tuple[tuple[str, Value, float], ...] = (
        ("errors", errors, 0),
        ("worst stall beyond the pace, ms", lambda one: one.stall_ms, 250),
        ("worst wait for the first chunk, ms", lambda one: one.first_max_ms, 250),
        ("peak memory, MiB", lambda one: one.peak_mib, 200),
    )
    for what, value, limit in many:
        yield Target(
            what=f"{MANY_STREAMS} paced streams: {what}",
            values=results.values("cortex", "many", value),
            limit=limit,
            worst=True,
        )


def _targets(results: Results) -> Table:
    columns = ("target", "reached", "bound", "verdict")
    rows = [one.row() for one in targets(results)]
    title = "targets: the median of the rounds counts, of the many streams the worst"
    return Table(title=title, columns=columns, rows=rows)


def _better_router(results: Results, load: str) -> str | None:
    costs = {
        name: median(values) for name in ROUTERS if (values := results.values(name, load, cpu_us))
    }
    return min(costs, key=costs.__getitem__, default=None)


def _ratios(results: Results, over: tuple[str, str], under: tuple[str, str]) -> list[float]:
    return _by_round(results, over, under, cpu_us, lambda one, other: one / other)


def _by_round(
    results: Results,
    one: tuple[str, str],
    other: tuple[str, str],
    value: Value,
    joined: Callable[[float, float], float],
) -> list[float]:
    """Return `joined` of two contestants' values within each round."""
    others = {sample.round: value(sample) for sample in results.of(*other)}
    pairs = ((value(sample), others.get(sample.round)) for sample in results.of(*one))
    return [joined(a, b) for a, b in pairs if a is not None and b]


def _less(one: float, other: float) -> float:
    return one - other


def _peaks(results: Results, name: str) -> list[float]:
    return results.values(name, "paced", lambda one: one.peak_mib)


def _cell(values: Sequence[float], digits: int = 1) -> Cell:
    if not values:
        return None
    low, middle, high = (f"{one:.{digits}f}" for one in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"
