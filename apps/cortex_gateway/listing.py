"""The model catalogue that clients see: everything any node serves or could serve."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cortex_core.settings import ModelEntry
from cortex_core.wire import ModelInfo
from cortex_dialects.messages import Listed
from cortex_gateway.fleet import Fleet, NodeState, now
from cortex_router import NoFit, Profile, Rules, place
from cortex_router.aliases import listed

#: When a model became known to us is not known; a fixed past moment keeps answers equal.
CREATED = 1_700_000_000


def entries(fleet: Fleet) -> list[dict[str, Any]]:
    """Return the rows of `/v1/models`, by id; aliases are rows of their own. Unknown is absent."""
    catalogue = {entry.id: entry for entry in fleet.catalogue.models}
    seen = {row.id for state in fleet.nodes.values() for row in state.models.values()}
    models = dict.fromkeys(sorted(catalogue.keys() | seen))
    others = listed(fleet.catalogue.aliases, models)
    rows = {
        model: _entry(
            fleet, model, catalogue.get(model), [a for a, m in others.items() if m == model]
        )
        for model in models
    }
    for alias, target in others.items():
        rows[alias] = {**rows[target], "id": alias, "alias_of": target, "aliases": []}
    return [rows[model] for model in sorted(rows)]


def named(fleet: Fleet, name: str) -> dict[str, Any] | None:
    """Return the row of one name, also of one that only a pattern covers; None if there is none."""
    rows = {row["id"]: row for row in entries(fleet)}
    if name in rows:
        return rows[name]
    target = rows.get(fleet.view().resolve(name))
    if target is None or "alias_of" in target:
        return None
    return {**target, "id": name, "alias_of": target["id"], "aliases": []}


def for_anthropic(rows: Iterable[dict[str, Any]]) -> list[Listed]:
    """Return the rows of `/v1/models` as Anthropic's clients list them.

    Another name is displayed as the model behind it, so that nobody takes it for Anthropic's own.
    """
    created = datetime.fromtimestamp(CREATED, UTC).isoformat().replace("+00:00", "Z")
    return [
        Listed(
            id=row["id"],
            display_name=row.get("alias_of", row["id"]),
            created_at=created,
            max_input_tokens=row.get("limit", {}).get("context"),
            max_tokens=row.get("limit", {}).get("output"),
        )
        for row in rows
    ]


def _entry(
    fleet: Fleet, model: str, written: ModelEntry | None, aliases: Iterable[str]
) -> dict[str, Any]:
    held = [
        (state, row)
        for state in fleet.nodes.values()
        if (row := state.models.get(model)) is not None
    ]
    locations = [_location(state, row) for state, row in held if row.status != "unloaded"]
    entry: dict[str, Any] = {
        "id": model,
        "object": "model",
        "created": CREATED,
        "owned_by": model.partition("/")[0] if "/" in model else "cortex",
        "loaded": any(
            row.status == "loaded" and row.servable.ok and state.healthy for state, row in held
        ),
        "feasible_on": feasible_on(fleet, model),
        "locations": locations,
        "aliases": sorted(aliases),
    }
    found = {c for _, row in held for c in row.capabilities}
    capabilities = sorted(found or set(written.capabilities if written else ()))
    if capabilities:
        entry["capabilities"] = capabilities
    if limit := _limit(written, [row for _, row in held]):
        entry["limit"] = limit
        if "context" in limit:
            entry["max_model_len"] = limit["context"]
    return entry


def feasible_on(fleet: Fleet, model: str) -> list[str]:
    """Return the healthy nodes whose devices could hold the model, were they empty."""
    view = fleet.view()
    profile = view.profile(model) or Profile(id=model)
    names = []
    for node in view.nodes:
        placement = place(node, profile, view.profiles, Rules(), now())
        impossible = isinstance(placement, NoFit) and not placement.ever
        if node.healthy and not impossible:
            names.append(node.name)
    return names


def _location(state: NodeState, row: ModelInfo) -> dict[str, Any]:
    location: dict[str, Any] = {"node": state.entry.name, "status": row.status}
    if row.vram_used_mb is not None:
        location["vram_mb"] = row.vram_used_mb
    return location


def _limit(entry: ModelEntry | None, rows: list[ModelInfo]) -> dict[str, int]:
    """Return the tightest limits known: what replicas say, then what the operator wrote."""
    limit: dict[str, int] = {}
    for name in ("context", "input", "output"):
        said = [
            value
            for row in rows
            if row.limit is not None and (value := getattr(row.limit, name)) is not None
        ]
        written = getattr(entry.limit, name) if entry and entry.limit else None
        known = [*said, *([written] if written is not None else [])]
        if known:
            limit[name] = min(known)
    return limit
