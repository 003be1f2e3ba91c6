"""The tables of faults and outcomes, as the page beside the node has them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.faults.scenario import Part, Scenario
from tests.faults.scenarios import SCENARIOS

PATH = Path(__file__).parents[2] / "apps" / "cortex_neuron" / "FAULTS.md"
#: The only column that differs from run to run.
MEASURED = "measured"

HEAD = """\
# What becomes of models when things break

`python -m tests.faults` breaks the engines, the GPUs and the driver under a node, and the node
itself, in every way listed here, and checks what its clients get; with `--write` it writes this
page. The node is as it is, its engines are real processes that fail on demand, and its two GPUs are
a library that the real NVML bindings load. After each fault it also checks that no engine, no
memory, no promise of memory, no seat and no descriptor is left once all is unloaded.

An engine that only takes long is told from one that hangs by its health, which it answers from a
thread that does not compute, and by the processor time it uses: one that answers is never killed,
however long its prefill takes, unless it answers that it is stuck itself; one that does not, and
does nothing, is after `hang` seconds; one that does not and yet works after ten times as long.

Outcomes are those of the node's own routes, with a whole and a streamed answer under way.
`measured` is what one run took on two cores of a shared machine.
"""


def page(measured: Mapping[str, str]) -> str:
    """Return the whole page, with what each scenario took."""
    return HEAD + "".join(f"\n{block}" for part in Part for block in _part(part, measured))


def without_measurements(text: str) -> list[str]:
    """Return the page's lines, each without its last column."""
    return [line.rpartition(" | ")[0] if line.startswith("| ") else line for line in _lines(text)]


def _lines(text: str) -> list[str]:
    return text.splitlines()


def _part(part: Part, measured: Mapping[str, str]) -> Iterator[str]:
    rows = [one for one in SCENARIOS if one.part is part]
    columns = ["fault", "how it is made", *rows[0].got, MEASURED]
    yield f"## {part.value}\n"
    lines = [columns, ["---"] * len(columns), *(_row(one, measured) for one in rows)]
    yield "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(scenario: Scenario, measured: Mapping[str, str]) -> list[str]:
    took = measured.get(scenario.name, "–")
    return [scenario.name, scenario.how, *scenario.got.values(), took]
