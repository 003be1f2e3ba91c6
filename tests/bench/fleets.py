"""Fleets of any size for measuring the router: the same for the same numbers."""

from dataclasses import dataclass, replace
from random import Random

from cortex_router import (
    Device,
    FleetView,
    Node,
    Profile,
    Replica,
    RequestSent,
    Status,
    apply,
    fleet_view,
)

#: The moment at which it is decided; everything was used in the 1,000 s before.
NOW = 2000.0
#: In no fleet: one that fits nearly everywhere, and one for which somebody has to leave.
SMALL = Profile(id="small", size_mb=1500)
LARGE = Profile(id="large", size_mb=7000)


@dataclass(frozen=True, slots=True)
class Fleet:
    """A view, and what it was made of."""

    view: FleetView
    nodes: tuple[Node, ...]
    models: tuple[str, ...]


def fleet_of(nodes: int, models: int, held: int) -> Fleet:
    """Return `nodes` nodes of two devices, on each of them `held` of `models` models loaded."""
    random = Random(1)
    profiles = {
        name: Profile(id=name, size_mb=1000 + random.randrange(7000))
        for name in (f"m{number}" for number in range(models))
    }
    names = tuple(profiles)
    made = tuple(_node(f"n{number:05}", random, names, held, profiles) for number in range(nodes))
    view = fleet_view(made, {**profiles, SMALL.id: SMALL, LARGE.id: LARGE})
    return Fleet(view, made, names)


def with_sessions(fleet: Fleet, count: int) -> FleetView:
    """Return the view after `count` requests of 500 conversations, none of which has ended."""
    view = fleet.view
    for number in range(count):
        node = fleet.nodes[number % len(fleet.nodes)]
        model = node.replicas[0].model
        view = apply(
            view,
            RequestSent(
                node=node.name, model=model, at=1.0, session=f"s{number % 500}", tokens=1000
            ),
        )
    return view


def nothing_derived(view: FleetView) -> FleetView:
    """Return the view as if every node had just been observed: nothing worked out of it yet."""
    return fleet_view(tuple(replace(node) for node in view.nodes), view.profiles, view.aliases)


def _node(
    name: str, random: Random, models: tuple[str, ...], held: int, profiles: dict[str, Profile]
) -> Node:
    return Node(
        name=name,
        healthy=True,
        devices=(
            Device(index=0, total_mb=48_000, free_mb=2000),
            Device(index=1, total_mb=24_000, free_mb=1000),
        ),
        replicas=tuple(
            Replica(
                model=model,
                status=Status.LOADED,
                devices=(at % 2,),
                used_mb=profiles[model].size_mb,
                max_in_flight=4,
                in_flight=random.randrange(3) if random.random() < 0.3 else 0,
                last_used=random.random() * 1000.0,
                tok_s_decode=random.choice([20.0, 40.0, 80.0]),
            )
            for at, model in enumerate(random.sample(models, held))
        ),
    )
