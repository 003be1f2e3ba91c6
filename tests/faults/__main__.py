"""Break everything under a node, and say what became of it.

    python -m tests.faults                  all of it: two minutes
    python -m tests.faults --only frozen    faults whose name has this in it
    python -m tests.faults --write          all of it, and the page is written anew

It exits 1 when an outcome was another than the table says, or something was left behind.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from tests.fake_nvml.gpus import compiled
from tests.faults.page import PATH, page
from tests.faults.scenario import Measured
from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import stage


def main(
    *,
    only: Annotated[str, typer.Option(help="Faults whose name has this in it.")] = "",
    write: Annotated[bool, typer.Option(help="Write the page, if all is well.")] = False,
) -> None:
    """Run the scenarios and print what they took."""
    if write and only:
        raise typer.BadParameter("the page has all faults: leave --only out")
    chosen = [one for one in SCENARIOS if only in one.name]
    took: dict[str, str] = {}
    failed = 0
    with TemporaryDirectory(prefix="faults-") as folder:
        library = Path(folder) / "library"
        library.mkdir()
        with stage(Path(folder), compiled(library)) as made:
            for scenario in chosen:
                measured, began = Measured(), time.monotonic()
                try:
                    scenario.run(made, measured)
                    made.settles()
                    told = str(measured)
                    took[scenario.name] = told
                except Exception as error:  # noqa: BLE001  # told in the table
                    told = f"WRONG: {type(error).__name__}: {error}"
                    failed += 1
                    made.reset()
                typer.echo(f"  {scenario.name:28} {time.monotonic() - began:6.2f} s  {told}")
    typer.echo(f"\n{len(chosen)} faults, {failed} with another outcome than the table's")
    if failed:
        raise typer.Exit(1)
    if write:
        PATH.write_text(page(took), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
