"""A node whose clock shows 100, and who waits there: short spellings for swap scheduling."""

from cortex_router import Demand, Device, Node, Profile, Replica, Status, Swapping

NOW = 100.0
SWAPPING = Swapping(amortise=1.0, linger_secs=5.0)


def resident(
    model: str,
    *,
    used: int = 8,
    age: float = 100.0,
    idle: float = 100.0,
    in_flight: int = 0,
    devices: tuple[int, ...] = (0,),
    status: Status = Status.LOADED,
) -> Replica:
    """A model whose load took 10 s; by default it has served its time, and is idle."""
    return Replica(
        model=model,
        status=status,
        devices=devices,
        used_mb=used,
        in_flight=in_flight,
        loaded_at=NOW - age,
        last_used=NOW - idle,
        load_secs=10.0,
    )


def machine(*held: Replica, total: int = 16, devices: int = 1) -> Node:
    """A node whose devices have what the residents leave them."""
    free = [
        total - sum(r.share_mb(None) or 0 for r in held if i in r.devices) for i in range(devices)
    ]
    return Node(
        name="n",
        healthy=True,
        devices=tuple(
            Device(index=i, total_mb=total, free_mb=max(0, mb), reserved_mb=max(0, -mb))
            for i, mb in enumerate(free)
        ),
        replicas=held,
    )


def demand(
    model: str, *, size: int = 8, since: float = 90.0, count: int = 1, devices: int = 1
) -> Demand:
    """Somebody has waited for ten seconds."""
    profile = Profile(id=model, size_mb=size, min_devices=devices)
    return Demand(profile=profile, count=count, since=since)
