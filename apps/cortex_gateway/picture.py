"""The whole fleet as JSON: `GET /health`, `GET /fleet`, and the events of `/fleet/events`."""

from typing import Any

from cortex_core import __version__
from cortex_gateway.fleet import Fleet, NodeState, now
from cortex_gateway.listing import entries
from cortex_gateway.snapshot import catalogue_picture


def health(fleet: Fleet) -> dict[str, Any]:
    """Return `ok`, `degraded` (nodes missing) or `impaired` (a resident model cannot serve)."""
    states = list(fleet.nodes.values())
    missing = [state.entry.name for state in states if not state.healthy]
    unservable = [
        {
            "node": state.entry.name,
            "model": row.id,
            "reason": row.servable.reason or row.status,
            **({"detail": row.servable.detail} if row.servable.detail else {}),
        }
        for state in states
        if state.healthy
        for row in state.models.values()
        if not row.servable.ok or row.status in {"failed", "recovering"}
    ]
    status = "impaired" if unservable else "degraded" if missing or not states else "ok"
    return {
        "status": status,
        "nodes": {"healthy": len(states) - len(missing), "total": len(states)},
        "missing": missing,
        "unservable": unservable,
    }


def fleet_picture(fleet: Fleet, *, in_flight: int, waiting: int) -> dict[str, Any]:
    """Return `GET /fleet`."""
    return {
        "status": health(fleet)["status"],
        "version": __version__,
        "now": now(),
        "nodes": [node_picture(fleet.nodes[name]) for name in sorted(fleet.nodes)],
        "models": entries(fleet),
        "catalogue": catalogue_picture(fleet.view()),
        "requests": {"in_flight": in_flight, "waiting": waiting},
    }


def node_picture(state: NodeState) -> dict[str, Any]:
    """Return one node; what it did not say is absent."""
    discovery = state.discovery
    telemetry = {device.index: device for device in state.health.devices}
    devices = []
    for device in discovery.devices if discovery else ():
        row = device.model_dump(exclude_none=True)
        if (seen := telemetry.get(device.index)) is not None:
            row |= seen.model_dump(exclude_none=True)
        devices.append(row)
    picture: dict[str, Any] = {
        "name": state.entry.name,
        "endpoint": state.entry.endpoint,
        "healthy": state.healthy,
        "draining": state.health.draining,
        "devices": devices,
        "models": [
            state.models[model].model_dump(exclude_none=True) for model in sorted(state.models)
        ],
    }
    known = {
        "last_seen": state.last_seen,
        "load_cycles": state.health.load_cycles,
        "error": state.error,
        **(
            {"activation": a.model_dump(exclude_none=True)}
            if (a := state.health.activation)
            else {}
        ),
    }
    if discovery is not None:
        known |= discovery.model_dump(
            include={
                "boot_id",
                "version",
                "hostname",
                "harnesses",
                "driver_version",
                "cuda_unavailable_reason",
            }
        )
    return picture | {name: value for name, value in known.items() if value is not None}
