"""How requests look in a terminal: those in flight, and those that have ended."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from cortex_gateway.cli import view
from cortex_gateway.cli.showing import plain

_OUTCOMES = {"done": "green", "cancelled": "yellow", "client_gone": "yellow", "failed": "red"}
_PHASES = {"waiting": "yellow", "reading": "cyan", "answering": "green"}


def in_flight(rows: Sequence[view.RunningRequest]) -> RenderableType:
    """Return the table of requests in flight."""
    if not rows:
        return Text("No requests in flight.")
    table = _table("REQUEST", "PHASE", "AGE", "MODEL", "NODE", "TOKENS", "TRIES", "DIALECT", "WHO")
    for one in rows:
        table.add_row(
            plain(one.id, "bold"),
            plain(one.phase, _PHASES.get(one.phase, "")),
            secs(one.age_secs),
            plain(one.model or "-"),
            plain(one.node or "-"),
            str(one.tokens) if one.stream else "-",
            str(one.attempts),
            plain(one.dialect),
            plain(one.key or one.principal),
        )
    return table


def ended(rows: Sequence[view.EndedRequest]) -> RenderableType:
    """Return the table of requests that have ended."""
    table = _table("ENDED", "OUTCOME", "STATUS", "TOOK", "MODEL", "NODE", "TOKENS", "WHY", "WHO")
    for one in rows:
        why = one.code if one.outcome == "failed" else one.finish_reason
        table.add_row(
            plain(one.id),
            plain(one.outcome, _OUTCOMES.get(one.outcome, "")),
            str(one.status),
            secs(one.duration_secs),
            plain(one.model or "-"),
            plain(one.node or "-"),
            str(one.tokens),
            plain(why or "-"),
            plain(one.key or one.principal),
        )
    return table


def secs(value: float) -> str:
    """Return seconds as people say them."""
    if value < 60:  # noqa: PLR2004
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading)
    return table
