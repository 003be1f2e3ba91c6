"""How the fleet looks in a terminal. Values in, rich renderables out; only `console` knows the tty.

Words that came over the network are never read as markup, and lose their control characters.
"""

import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cortex_core.wire import ModelInfo
from cortex_gateway.cli import view

BAR_CELLS: Final = 24
_COLOURS: Final = {
    "ok": "green",
    "loaded": "green",
    "degraded": "yellow",
    "loading": "cyan",
    "queued": "cyan",
    "recovering": "yellow",
    "unloading": "yellow",
    "impaired": "red",
    "failed": "red",
}


def console(*, stderr: bool = False) -> Console:
    """Return the console; a pipe is given room, because a cut table is of no use in a log."""
    tty = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if tty else 140, markup=False, highlight=False)


def plain(text: object, style: str = "") -> Text:
    """Return foreign words as they are: no markup, no control characters."""
    return Text("".join(one for one in str(text) if one.isprintable()), style=style)


def age(then: float | None, now: float) -> str:
    """Return how long ago `then` was: `3 s ago`, `never` when it has not been."""
    if then is None:
        return "never"
    secs = max(0.0, now - then)
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if secs < limit:
            return f"{secs / size:.0f} {unit} ago"
    return f"{secs / 86400:.0f} d ago"


def gib(mib: int | None) -> str:
    """Return MiB as GiB with one digit; `?` for what is not known."""
    return "?" if mib is None else f"{mib / 1024:.1f}"


def megabytes(done: int | None, total: int | None) -> str:
    """Return `41.2 of 98.4 MB`, as much of it as is known."""
    if done is None:
        return ""
    return f"{done / 1e6:.1f} MB" if not total else f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"


def memory_bar(device: view.FleetDevice) -> Text:
    """Return a bar: used, then promised to loads in progress, then free."""
    total = device.vram_total_mb
    if not total:
        return Text("·" * BAR_CELLS, style="dim")
    used = min(BAR_CELLS, round(BAR_CELLS * (device.vram_used_mb or 0) / total))
    promised = min(BAR_CELLS - used, round(BAR_CELLS * (device.vram_reserved_mb or 0) / total))
    return Text.assemble(
        ("█" * used, "green"),
        ("▒" * promised, "yellow"),
        ("░" * (BAR_CELLS - used - promised), "dim"),
    )


def fleet(shown: view.Fleet) -> RenderableType:
    """Return the whole of `cortex status`."""
    head = Text.assemble(
        "cortex ",
        plain(shown.version or ""),
        " is ",
        plain(shown.status, _COLOURS.get(shown.status, "")),
        f" · nodes: {len(shown.nodes)}",
        f" · requests: {shown.requests.in_flight} in flight, {shown.requests.waiting} waiting",
    )
    if not shown.nodes:
        return Group(head, Text("No neurons: name them as [[neurons]] in cortex.toml."))
    return Group(head, *(_node(one, shown.now) for one in shown.nodes))


def models(listed: Sequence[view.ListedModel]) -> RenderableType:
    """Return the table of `cortex models`."""
    if not listed:
        return Text("No models: list them in models.toml, or give a neuron model_dirs.")
    table = _table("MODEL", "LOADED ON", "COULD RUN ON", "CONTEXT", "CAPABILITIES", "ALIASES")
    for one in sorted(listed, key=lambda entry: entry.id):
        places = (
            place.node if place.status in (None, "loaded") else f"{place.node} ({place.status})"
            for place in one.locations
        )
        context = one.max_model_len or (one.limit.context if one.limit else None)
        cells = (
            ", ".join(places),
            ", ".join(one.feasible_on),
            str(context or ""),
            ", ".join(one.capabilities),
            ", ".join(one.aliases),
        )
        table.add_row(plain(one.id, "bold"), *(plain(cell or "-") for cell in cells))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading)
    return table


def _node(node: view.FleetNode, now: float) -> RenderableType:
    state, colour = ("healthy", "green") if node.healthy else ("not healthy", "red")
    head = Text.assemble(
        ("● ", colour),
        plain(node.name, "bold"),
        "  ",
        (state, colour),
        ("  draining" if node.draining else "", "yellow"),
        f"  heard {age(node.last_seen, now)}",
        plain(f"  {node.endpoint}" if node.endpoint else "", "dim"),
        plain(f"  neuron {node.version}" if node.version else "", "dim"),
        plain(f"  {', '.join(node.harnesses)}", "dim"),
    )
    parts: list[RenderableType] = [Text(""), head]
    if node.error:
        parts.append(Padding(plain(node.error, "red"), (0, 0, 0, 2)))
    if node.devices:
        parts.append(Padding(_devices(node.devices), (0, 0, 0, 2)))
    # A model whose files are on the node is not resident: it is named, not listed.
    resident = [row for row in node.models if row.status != "unloaded"]
    if resident:
        parts.append(Padding(_resident(resident, now), (0, 0, 0, 2)))
    if asleep := [row.id for row in node.models if row.status == "unloaded"]:
        parts.append(Padding(plain(f"on disk: {', '.join(asleep)}", "dim"), (0, 0, 0, 2)))
    return Group(*parts)


def _devices(devices: Sequence[view.FleetDevice]) -> Table:
    table = _table("DEVICE", "", "MEMORY", "USED", "PROMISED", "FREE", "TOTAL GiB", "BUSY", "TEMP")
    for one in devices:
        table.add_row(
            plain(f"{one.kind or 'device'} {one.index}"),
            plain(one.name or ""),
            memory_bar(one),
            gib(one.vram_used_mb),
            gib(one.vram_reserved_mb),
            gib(one.vram_free_mb),
            gib(one.vram_total_mb),
            "?" if one.utilization_pct is None else f"{one.utilization_pct:.0f} %",
            "?" if one.temp_c is None else f"{one.temp_c:.0f} °C",
        )
    return table


def _resident(rows: Sequence[ModelInfo], now: float) -> Table:
    table = _table("MODEL", "STATUS", "DEVICES", "GiB", "IN FLIGHT", "QUEUED", "LAST USE", "")
    for row in rows:
        table.add_row(
            plain(row.id, "bold"),
            plain(row.status, _COLOURS.get(row.status, "")),
            ", ".join(map(str, row.devices)) or "-",
            gib(row.vram_used_mb),
            str(row.in_flight),
            str(row.queue_depth),
            age(row.last_used, now),
            plain(_remark(row), "red" if row.error or not row.servable.ok else ""),
        )
    return table


def _remark(row: ModelInfo) -> str:
    if row.error:
        return row.error
    if not row.servable.ok:
        return row.servable.detail or row.servable.reason or "cannot serve"
    if row.progress is None:
        return ""
    amount = megabytes(row.progress.done_bytes, row.progress.total_bytes)
    return f"{row.progress.phase} {amount}".strip()
