"""Break everything, and say what the clients got.

    python -m tests.chaos                  all of it: minutes
    python -m tests.chaos --only frozen    faults whose name has this in it
    python -m tests.chaos --write          all of it, and the page is written anew

It exits 1 when an outcome was another than the table says, or something was left behind.
"""

from typing import Annotated

import typer

from tests.chaos.page import PATH, page
from tests.chaos.scenario import Part
from tests.chaos.suite import SCENARIOS, results


def main(
    *,
    only: Annotated[str, typer.Option(help="Faults whose name has this in it.")] = "",
    write: Annotated[bool, typer.Option(help="Write the page, if all is well.")] = False,
) -> None:
    """Run the scenarios and print the table."""
    if write and only:
        raise typer.BadParameter("the page has all faults: leave --only out")
    chosen = [one for one in SCENARIOS if only in one.name]
    part: Part | None = None
    failed = 0
    for scenario, secs, error in results(chosen):
        if scenario.part is not part:
            part = scenario.part
            typer.echo(f"\n{part.value}")
        got = "; ".join(
            told if name == "outcome" else f"{name}: {told}" for name, told in scenario.got.items()
        )
        told = got
        if error is not None:
            told = f"{'not yet' if scenario.not_yet else 'WRONG'}: {type(error).__name__}: {error}"
        elif scenario.not_yet:
            told = f"as it should be this time; once it always is, `not_yet` may go: {got}"
        failed += told.startswith("WRONG")
        typer.echo(f"  {scenario.name:34} {secs:6.2f} s  {told}")
    typer.echo(f"\n{len(chosen)} faults, {failed} with another outcome than the table's")
    if failed:
        raise typer.Exit(1)
    if write:
        PATH.write_text(page(SCENARIOS), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
