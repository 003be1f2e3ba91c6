"""`cortex simulate`: the same day under several policies, side by side.

Everything is imported inside the command: `cortex version` needs none of it.
"""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cortex_core.commands import Exit, Failure, needing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cortex_router.simulation import Arrival, Contender, Fleet, Results


def simulate(  # noqa: PLR0913, PLR0917  # as many arguments as flags
    fleet: Annotated[
        Path, typer.Option("--fleet", metavar="FILE", help="The machines: fleet.toml.")
    ],
    models: Annotated[
        Path, typer.Option("--models", metavar="FILE", help="The catalogue: models.toml.")
    ],
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="What arrives: a log of cortex, as JSON."),
    ] = None,
    workload: Annotated[
        Path | None,
        typer.Option("--workload", metavar="FILE", help="What arrives: workload.toml."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="NAME",
            help="fcfs, random, lru, priority, cost, or your own as module:Object; "
            "again for another column. Default: lru.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="What is drawn: the same seed, the same figures.")] = 1,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Only so many requests. Default: all.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="PNG", help="Draw a picture as well.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Let a made-up or recorded day meet a fleet in simulated time, policy by policy."""
    if (trace is None) == (workload is None):
        raise Failure("name what arrives: either --trace or --workload", Exit.USAGE)
    from cortex_core.loading import ConfigError
    from cortex_router import simulation

    draw = None if plot is None else _plotter()
    try:
        contenders = [_contender(name, seed) for name in policy or ["lru"]]
        machines = _fleet(fleet, models)
        results = [
            simulation.simulate(machines, _arrivals(machines, trace, workload, seed, requests), one)
            for one in contenders
        ]
    except ConfigError as error:
        raise Failure(str(error), Exit.USAGE) from error
    if as_json:
        typer.echo(json.dumps({"seed": seed, "policies": [one.as_json() for one in results]}))
    else:
        from cortex_gateway.cli.showing import console
        from cortex_gateway.cli.simulation_tables import comparison

        console().print(comparison(results))
    if draw is not None and plot is not None:
        draw(results, plot)


def _contender(name: str, seed: int) -> "Contender":
    from cortex_gateway.policies import with_object
    from cortex_router import Policy, simulation

    if ":" in name:
        return simulation.of_policy(name, with_object(Policy(), name, where="--policy"))
    try:
        return simulation.contender(name, seed)
    except KeyError:
        known = ", ".join(simulation.NAMES)
        raise Failure(f"--policy {name}: unknown; there are {known}", Exit.USAGE) from None


def _fleet(fleet: Path, models: Path) -> "Fleet":
    from cortex_core.settings import load_catalogue
    from cortex_gateway.cli.simulation_files import load_fleet

    catalogue = load_catalogue(models)
    for entry in catalogue.models:
        if entry.vram_mb is None:
            typer.echo(f"{models}: {entry.id} has no vram_mb and is left out", err=True)
    made = load_fleet(fleet, catalogue)
    if not made.models:
        raise Failure(f"{models}: no model has a vram_mb", Exit.USAGE)
    return made


def _arrivals(
    fleet: "Fleet", trace: Path | None, workload: Path | None, seed: int, requests: int | None
) -> "Iterable[Arrival]":
    """Return what arrives; read anew for every policy, so that each meets the same."""
    from cortex_core.loading import ConfigError
    from cortex_gateway.cli.simulation_files import load_workload
    from cortex_gateway.cli.trace import read_trace
    from cortex_router.simulation import arrivals

    if workload is not None:
        ids = [model.profile.id for model in fleet.models]
        # Not for secrets: a seed has to give the same numbers again.
        drawn = random.Random(seed)  # noqa: S311
        return arrivals(load_workload(workload, requests), ids, drawn)
    assert trace is not None  # noqa: S101  # one of the two is named
    try:
        with trace.open(encoding="utf-8") as lines:
            return read_trace(lines, str(trace))[:requests]
    except OSError as error:
        raise ConfigError(f"{trace}: cannot be read: {error.strerror}") from error


def _plotter() -> "Callable[[Sequence[Results], Path], None]":
    """Return what draws; asked before the run, so that nobody waits for a missing library."""
    with needing("simulation"):
        from cortex_gateway.cli.simulation_plot import plot
    return plot
