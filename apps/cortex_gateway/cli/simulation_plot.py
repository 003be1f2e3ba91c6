"""The picture of a comparison: how long requests waited, and what each policy cost in loads."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cortex_router.simulation import Results

#: The smallest wait drawn on the logarithmic axis.
_FLOOR_SECS = 0.01


def plot(results: Sequence[Results], file: Path) -> None:
    """Write the picture as PNG."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    waits, loads = figure.subplots(1, 2)
    for one in results:
        waits.plot([max(_FLOOR_SECS, secs) for secs in one.curve], range(len(one.curve)))
    waits.set(xscale="log", xlabel="wait, s", ylabel="% of requests", title="Within this wait")
    waits.legend([one.policy for one in results])
    waits.grid(visible=True, alpha=0.3)
    names = [one.policy for one in results]
    places = range(len(names))
    counts = {
        "cold starts": [one.cold_starts for one in results],
        "evictions": [one.evictions for one in results],
        "thrash": [one.thrash for one in results],
    }
    for at, (name, values) in enumerate(counts.items()):
        loads.bar([place + 0.27 * (at - 1) for place in places], values, width=0.25, label=name)
    loads.set_xticks(list(places), names)
    loads.set_title("Loads")
    loads.legend()
    figure.savefig(file, format="png", dpi=120)
