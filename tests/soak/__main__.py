"""Long runs that the suite has no time for.

    python -m tests.soak --events 1000000 --seed 1     random events against one node
    python -m tests.soak swaps                         three models over memory for two

The first exits 1 when something that must always hold was violated, with the seed and the last
events; the second compares turns with first come, first served.
"""

from typing import Annotated

import typer

from cortex_router import Swapping
from tests.soak.driver import Soaked, soak
from tests.soak.swaps import table

app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
def events(
    context: typer.Context,
    *,
    events: Annotated[int, typer.Option(min=1)] = 1_000_000,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Drive the stateful model with random events."""
    if context.invoked_subcommand is not None:
        return
    result = soak(events, seed)
    typer.echo(told(result, seed))
    if result.violation is not None:
        raise typer.Exit(1)


@app.command()
def swaps(
    *,
    minutes: Annotated[float, typer.Option(min=1)] = 15.0,
    seed: Annotated[int, typer.Option()] = 1,
) -> None:
    """Compare ways to share too little memory, on the same seeded traces."""
    ways = {
        "by turns": Swapping(),
        "amortise 0": Swapping(amortise=0.0),
        "amortise 2": Swapping(amortise=2.0),
        "linger 5 s": Swapping(linger_secs=5.0),
    }
    for line in table(ways, length_secs=60 * minutes, seed=seed):
        typer.echo(line)


def told(result: Soaked, seed: int) -> str:
    """Return a run in words."""
    outcomes = ", ".join(f"{count} {name}" for name, count in sorted(result.outcomes.items()))
    lines = [
        f"seed {seed}: {result.events} events on {result.nodes} nodes in {result.secs:.0f} s",
        f"{result.requests} requests: {outcomes}",
        (
            f"{result.starts} loads; longest wait for one {result.longest_wait_secs:.1f} s, its "
            f"bound {result.its_bound_secs:.1f} s; nearest to its bound {result.nearest:.0%}"
        ),
    ]
    if result.violation is not None:
        lines += [*result.last_events, f"VIOLATION with seed {seed}: {result.violation}"]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
