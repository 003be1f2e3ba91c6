"""How the commands about models show what they found: tables, plain values, progress."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Final, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from cortex_core.wire import Device
from cortex_neuron.fitting import Need, Place
from cortex_neuron.inspecting import Inspection

_WIDTH: Final = 160
_SAY_EVERY_SECS: Final = 5.0
_SPLITS: Final = {"whole": "", "layers": " by layers", "tensors": " tensor-parallel"}


class Progress:
    """A bar on a terminal, a line now and then elsewhere, on stderr."""

    def __init__(self, *, silent: bool) -> None:
        self._silent, self._said = silent, time.monotonic()
        self._bar: Bar | None = None
        if sys.stderr.isatty() and not silent:
            columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bar = Bar(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def report(self, done: int, total: int | None) -> None:
        """Say how far it is."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total)
        elif not self._silent and time.monotonic() - self._said >= _SAY_EVERY_SECS:
            self._said = time.monotonic()
            of = f" of {total >> 20}" if total else ""
            sys.stderr.write(f"{done >> 20}{of} MiB\n")


def show_models(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table of `list`."""
    table = _table("SOURCE", "FORMAT", "QUANT", "GiB", "STATE")
    for row in rows:
        state = row["state"] if row["state"] == "ok" else f"{row['state']}: {row['problem']}"
        cells = (row["source"], row.get("format", "?"), row.get("quant", "-"))
        table.add_row(*map(Text, (*cells, _gib(row["bytes"]), state)))
    _console().print(table if rows else Text("no models"))


def show_model(
    found: Inspection,
    context: int,
    needed: Sequence[Need],
    where: Sequence[Place],
    devices: Sequence[Device],
) -> None:
    """Print what `inspect` found."""
    console = _console()
    facts = found.facts
    quant = facts.quant if facts is not None and facts.quant else found.format
    console.print(Text(f"{found.path}: {quant}, {_gib(found.file_bytes)} GiB on disk"))
    console.print(Text(f"for the harness {found.harness}"))
    said = dict(found.details)
    if facts is not None:
        said = {"architecture": facts.architecture, "serves": ", ".join(facts.capabilities)} | said
        said.setdefault("context_length", facts.context_length)
    for name, value in said.items():
        console.print(Text(f"  {name.replace('_', ' ')}: {_words(value)}"))
    for warning in found.warnings:
        console.print(Text(f"  warning: {warning}"))
    if not needed:
        return
    console.print(Text(f"memory on one device, in GiB, for {context} tokens:"))
    console.print(_needs(needed))
    if where:
        console.print(Text("where it fits now (yes), with nothing else there (empty), or not:"))
        console.print(_places(where, {one.index: one for one in devices}))
    else:
        console.print(Text("this machine has no device that can run it"))


def as_plain(
    found: Inspection, context: int, needed: Sequence[Need], where: Sequence[Place]
) -> dict[str, Any]:
    """Return what `inspect` found for JSON; what is not known is absent."""
    facts = found.facts
    said: dict[str, Any] = {
        "path": str(found.path),
        "format": found.format,
        "harness": found.harness,
        "file_bytes": found.file_bytes,
        **found.details,
    }
    if facts is not None:
        known = {
            "architecture": facts.architecture,
            "quant": facts.quant,
            "context_length": facts.context_length,
            "capabilities": list(facts.capabilities),
        }
        said |= {name: value for name, value in known.items() if value is not None}
        said |= {
            "context": context,
            "memory": [asdict(one) for one in needed],
            "places": [asdict(one) for one in where],
        }
    return {name: value for name, value in said.items() if value is not None}


def _needs(needed: Sequence[Need]) -> Table:
    parts = list(needed[0].parts_mb)
    names = {"context": "CUDA", "scratch": "BUFFERS"}
    table = _table("CACHE MODE", "TOTAL", *(names.get(one, one.upper()) for one in parts))
    for one in needed:
        sizes = (one.needed_mb, *(one.parts_mb[part] for part in parts))
        table.add_row(one.cache_mode, *(_mib(size) for size in sizes))
    return table


def _places(where: Sequence[Place], devices: Mapping[int, Device]) -> Table:
    modes = [one.cache_mode for one in where[0].fits]
    table = _table("DEVICES", "FREE GiB", *modes)
    for place in where:
        names = ", ".join(f"{devices[index].kind} {index}" for index in place.devices)
        cells = []
        for fit in place.fits:
            state = "yes" if fit.fits_now else "empty" if fit.fits_empty else "no"
            cells.append(f"{state}, up to {fit.longest} tokens" if fit.longest else state)
        free = " + ".join(_mib(size) for size in place.free_mb)
        table.add_row(names + _SPLITS[place.split], free, *cells)
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f}"


def _mib(size: int) -> str:
    return f"{size / 1024:.2f}"
