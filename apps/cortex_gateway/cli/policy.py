"""`cortex policy check`: try a policy of your own on many fleets before it decides for yours."""

# The imports of a command wait until it runs.
# ruff: noqa: PLC0415

import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated

import typer

from cortex_core.commands import Exit, Failure

if TYPE_CHECKING:
    from cortex_router import Node
    from cortex_router.conformance import Case

# Most fleets are well: that is where a choice is to be made.
LIKELY = 0.7
VERY_LIKELY = 0.9
NOW = 1_000_000.0
MODELS = ("a", "b", "c", "d")


def check(
    name: Annotated[str, typer.Argument(help="As 'package.module:Object'.", show_default=False)],
    views: Annotated[int, typer.Option(min=1, help="How many fleets to try.")] = 500,
    seed: Annotated[int, typer.Option(help="Another number, other fleets.")] = 1,
) -> None:
    """Check a ranking, an eviction strategy or a whole policy; 1 if it breaks a promise."""
    from cortex_core.loading import ConfigError
    from cortex_gateway.policies import with_object
    from cortex_router import Policy
    from cortex_router.conformance import check as violations

    # A policy lies in the folder one works in, more often than not.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        policy = with_object(Policy(), name, where="policy")
    except ConfigError as error:
        raise Failure(str(error), Exit.USAGE) from error
    found = violations(policy, cases(Random(seed), views))  # noqa: S311  # made-up fleets
    for violation in found:
        typer.echo(f"{violation.promise}: {violation.detail}")
    typer.echo(f"{name}: {len(found) or 'no'} promise(s) broken on {views} fleets (seed {seed})")
    if found:
        raise typer.Exit(int(Exit.UNWELL))


def cases(chance: Random, count: int) -> "Iterator[Case]":
    """Return fleets of all kinds, each with a question; small numbers, so that they collide."""
    from cortex_router import Profile, RouteRequest, fleet_view
    from cortex_router.conformance import Case

    for _ in range(count):
        profiles = {
            model: Profile(
                id=model,
                size_mb=chance.choice([None, 4, 8, 12]),
                min_devices=chance.choice([1, 1, 2]),
                priority=chance.choice([None, 50, 200]),
            )
            for model in MODELS[:3]
        }
        nodes = tuple(_node(chance, f"n{number}") for number in range(chance.randint(0, 5)))
        session = chance.choice([None, "s1", "s2"])
        request = RouteRequest(model=chance.choice(MODELS), session=session, tokens=1000)
        yield Case(fleet_view(nodes, profiles), request, NOW)


def _node(chance: Random, name: str) -> "Node":
    from cortex_router import Device, Node, Replica, Status

    devices = tuple(
        Device(index=index, total_mb=16, free_mb=chance.choice([None, 0, 4, 8, 16]))
        for index in range(chance.randint(1, 2))
    )
    replicas = tuple(
        Replica(
            model=model,
            status=Status.LOADED if chance.random() < LIKELY else chance.choice([*Status]),
            devices=(chance.randrange(len(devices)),),
            used_mb=chance.choice([None, 4, 8]),
            in_flight=chance.choice([0, 0, 1, 4]),
            max_in_flight=chance.choice([None, 1, 4]),
            last_used=chance.choice([None, NOW - 1, NOW - 1000]),
            loaded_at=chance.choice([None, NOW - 1, NOW - 1000]),
            tok_s_decode=chance.choice([None, 10.0, 40.0]),
            servable=chance.random() < VERY_LIKELY,
        )
        for model in MODELS
        if chance.random() < LIKELY
    )
    return Node(
        name=name,
        healthy=chance.random() < VERY_LIKELY,
        draining=chance.random() > VERY_LIKELY,
        devices=devices,
        replicas=replicas,
    )
