"""The pictures of a comparison, as PNG."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.bench.peers.verdicts import Results, Value, cpu_us, rate

_OURS, _OTHERS = "tab:blue", "tab:gray"


def draw(results: Results, folder: Path) -> list[Path]:
    """Write what processor time, throughput and latency look like; return the files."""
    return [
        _draw(
            folder / "peers-cpu.png",
            results,
            [
                ("CPU per request, µs", "requests", cpu_us),
                ("CPU per chunk, unpaced, µs", "unpaced", cpu_us),
                ("CPU per chunk, paced, µs", "paced", cpu_us),
            ],
        ),
        _draw(
            folder / "peers-speed.png",
            results,
            [
                ("requests/s, 32 connections", "requests", rate),
                ("one request alone, p50 ms", "alone", lambda one: one.p50_ms),
                ("first chunk alone, p50 ms", "alone", lambda one: one.first_p50_ms),
            ],
        ),
        _draw(
            folder / "peers-streams.png",
            results,
            [
                ("unpaced chunks/s", "unpaced", rate),
                ("paced: gap of chunks, p99 ms", "paced", lambda one: one.p99_ms),
                ("paced: peak memory, MiB", "paced", lambda one: one.peak_mib),
            ],
        ),
    ]


def draw_memory(title: str, counts: Sequence[float], mib: Sequence[float], file: Path) -> Path:
    """Write how memory went while something was counted."""
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(counts, mib, marker="o")
    axes.set(title=title, ylabel="resident, MiB", ylim=(0, 1.2 * max(mib)))
    axes.grid(visible=True, alpha=0.3)
    return _save(figure, file)


def _draw(file: Path, results: Results, panels: Sequence[tuple[str, str, Value]]) -> Path:
    figure = Figure(figsize=(13, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, load, value) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        _bars(axes, results, load, value)
        axes.set_title(title)
    return _save(figure, file)


def _bars(axes: Axes, results: Results, load: str, value: Value) -> None:
    """Draw the median of each contestant, with a line from its least to its most, on a log axis."""
    seen = {
        name: values
        for name in reversed(results.names())
        if (values := results.values(name, load, value))
    }
    middles = [median(values) for values in seen.values()]
    below = [middle - min(values) for middle, values in zip(middles, seen.values(), strict=True)]
    above = [max(values) - middle for middle, values in zip(middles, seen.values(), strict=True)]
    colors = [_OURS if name == "cortex" else _OTHERS for name in seen]
    bars = axes.barh(list(seen), middles, xerr=[below, above], color=colors)
    axes.bar_label(bars, [f" {middle:,.{0 if middle >= 100 else 2}f}" for middle in middles])
    axes.set_xscale("log")
    axes.margins(x=0.25)


def _save(figure: Figure, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, format="png", dpi=110)
    return file
