"""From what `GET /fleet` once said back to a view that decisions can be taken on."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from pydantic import ValidationError

from cortex_core.settings import NeuronEntry
from cortex_core.wire import Discovery, Health, ModelInfo
from cortex_gateway.fleet import NodeState, as_node
from cortex_router import FleetView, Profile, fleet_view


class NoSnapshot(Exception):
    """The text is not what `GET /fleet` says; the message tells where it differs."""


def catalogue_picture(view: FleetView) -> dict[str, Any]:
    """Return the part of `GET /fleet` that says what the catalogue asks for."""
    return {
        "profiles": [asdict(view.profiles[model]) for model in sorted(view.profiles)],
        "aliases": dict(view.aliases),
    }


def view_of(picture: object) -> tuple[FleetView, float]:
    """Return the view and the time of a picture of the fleet. Raises NoSnapshot."""
    if not isinstance(picture, Mapping) or not isinstance(picture.get("nodes"), list):
        raise NoSnapshot("it has no list of nodes")
    try:
        nodes = tuple(as_node(_state(node)) for node in picture["nodes"])
        profiles = [_profile(one) for one in picture["catalogue"]["profiles"]]
        aliases = {str(k): str(v) for k, v in picture["catalogue"]["aliases"].items()}
        now = float(picture["now"])
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        raise NoSnapshot(f"{type(error).__name__}: {error}") from error
    return fleet_view(nodes, {profile.id: profile for profile in profiles}, aliases), now


def _state(node: Mapping[str, Any]) -> NodeState:
    return NodeState(
        entry=NeuronEntry(name=node["name"], endpoint=node.get("endpoint") or "http://unknown"),
        healthy=bool(node["healthy"]),
        discovery=Discovery.model_validate(node),
        health=Health.model_validate({**node, "models": ()}),
        models={row["id"]: ModelInfo.model_validate(row) for row in node["models"]},
    )


def _profile(said: Mapping[str, Any]) -> Profile:
    known = {one.name for one in fields(Profile)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in said.items()
        if name in known
    }
    return Profile(**values)
