"""How a comparison of policies looks in a terminal: figures side by side, and bars."""

from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from cortex_router.simulation import THRASH_SECS, Results, Spread

BAR_CELLS: Final = 48
_ROWS: Final[Sequence[tuple[str, Callable[[Results], str]]]] = (
    ("requests", lambda r: str(r.arrivals)),
    ("answered", lambda r: str(r.answered)),
    ("refused", lambda r: str(r.refused)),
    ("gave up waiting", lambda r: str(r.gave_up)),
    ("lost with a node", lambda r: str(r.lost)),
    ("wait p50, s", lambda r: _secs(r.wait, "p50")),
    ("wait p95, s", lambda r: _secs(r.wait, "p95")),
    ("wait p99, s", lambda r: _secs(r.wait, "p99")),
    ("wait worst, s", lambda r: _secs(r.wait, "worst")),
    ("queueing p50, s", lambda r: _secs(r.queueing, "p50")),
    ("queueing p95, s", lambda r: _secs(r.queueing, "p95")),
    ("queueing p99, s", lambda r: _secs(r.queueing, "p99")),
    ("cold starts", lambda r: str(r.cold_starts)),
    ("evictions", lambda r: str(r.evictions)),
    (f"thrash (back in {THRASH_SECS:.0f} s)", lambda r: str(r.thrash)),
    ("failed loads", lambda r: str(r.failed_loads)),
    ("loading, s", lambda r: f"{r.loading_secs:.0f}"),
    ("busy seats, s", lambda r: f"{r.busy_seat_secs:.0f}"),
    ("utilisation", lambda r: f"{r.utilisation:.1%}"),
    ("node switches / turns", lambda r: f"{r.switches} / {r.turns}"),
)
#: Beyond so many nodes the share of each is no longer read by anybody.
_SHARES = 8


def comparison(results: Sequence[Results]) -> RenderableType:
    """Return the figures, a column for each policy, and the bars worth seeing."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for one in results:
        table.add_column(one.policy, justify="right")
    for name, figure in _ROWS:
        table.add_row(name, *(figure(one) for one in results))
    nodes = list(results[0].share)
    for node in nodes if len(nodes) <= _SHARES else ():
        shares = (one.share[node] / one.answered if one.answered else 0.0 for one in results)
        table.add_row(Text(f"share of {node}"), *(f"{share:.1%}" for share in shares))
    p95 = {one.policy: one.wait.p95 if one.wait else 0.0 for one in results}
    colds = {one.policy: float(one.cold_starts) for one in results}
    return Group(
        table,
        Text(""),
        _bars("wait p95, s", p95, "cyan"),
        Text(""),
        _bars("cold starts", colds, "yellow"),
    )


def _bars(title: str, values: dict[str, float], colour: str) -> Text:
    longest = max(values.values()) or 1.0
    width = max(map(len, values))
    parts: list[str | tuple[str, str]] = [(title, "bold")]
    for name, value in values.items():
        cells = round(BAR_CELLS * value / longest)
        parts += [f"\n{name:<{width}} ", ("█" * cells, colour), f" {value:.5g}"]
    return Text.assemble(*parts)


def _secs(spread: Spread | None, name: str) -> str:
    return "-" if spread is None else f"{getattr(spread, name):.2f}"
