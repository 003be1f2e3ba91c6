"""Small fleets for tests: short spellings for nodes, replicas and profiles."""

from collections.abc import Mapping

from cortex_router import Device, FleetView, Node, Profile, Replica, Status, fleet_view


def device(index: int = 0, *, total: int | None = 24, free: int | None = 24) -> Device:
    """A device with small numbers, so that sizes collide."""
    return Device(index=index, total_mb=total, free_mb=free)


def replica(
    model: str,
    status: Status = Status.LOADED,
    *,
    devices: tuple[int, ...] = (0,),
    used: int | None = 10,
    in_flight: int = 0,
    last_used: float | None = 1.0,
    servable: bool = True,
    ceiling: int | None = 4,
    loaded_at: float | None = None,
) -> Replica:
    """A replica that holds 10 MiB of device 0 unless told otherwise."""
    return Replica(
        model=model,
        status=status,
        devices=devices,
        used_mb=used,
        in_flight=in_flight,
        max_in_flight=ceiling,
        last_used=last_used,
        loaded_at=loaded_at,
        servable=servable,
    )


def node(name: str, *held: Replica, healthy: bool = True, devices: tuple[Device, ...] = ()) -> Node:
    """A healthy node with one device of 24 MiB unless told otherwise."""
    return Node(name=name, healthy=healthy, devices=devices or (device(),), replicas=held)


def fleet(
    *nodes: Node, profiles: tuple[Profile, ...] = (), aliases: Mapping[str, str] | None = None
) -> FleetView:
    """A view of these nodes."""
    return fleet_view(nodes, {profile.id: profile for profile in profiles}, aliases)
