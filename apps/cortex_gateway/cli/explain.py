"""`cortex explain`: what would be done with a request for a model now, and why."""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from cortex_core.commands import Exit, Failure
from cortex_gateway.cli.fleet import DEFAULT_ENDPOINT, AsJson, Endpoint, Model, Node


def explain(
    model: Model,
    node: Node = None,
    snapshot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of a fleet as `cortex status --json` printed it."),
    ] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: AsJson = False,
) -> None:
    """Explain what would be done with a request for a model: every node, and why or why not."""
    said = _asked(endpoint, model, node) if snapshot is None else _of(snapshot, model, node)
    if as_json:
        typer.echo(json.dumps(said))
        return
    from cortex_gateway.cli import showing

    showing.console().print(_table(said))


def _asked(endpoint: str, model: str, node: str | None) -> dict[str, Any]:
    from cortex_gateway.cli.asking import Service, Unreachable

    service = Service.at(endpoint)
    query = urlencode({"model": model} | ({"node": node} if node else {}))
    said = service.get(f"/fleet/explain?{query}")
    if not isinstance(said, dict) or "considered" not in said:
        raise Unreachable(f"what answers at {service.endpoint} does not explain its decisions")
    return said


def _of(snapshot: Path, model: str, node: str | None) -> dict[str, Any]:
    """Explain from a file, with the default policy."""
    from cortex_gateway.explaining import explanation
    from cortex_gateway.snapshot import NoSnapshot, view_of
    from cortex_router import Policy, RouteRequest

    try:
        view, now = view_of(json.loads(snapshot.read_text(encoding="utf-8")))
    except OSError as error:
        raise Failure(f"{snapshot}: {error.strerror or error}", Exit.USAGE) from error
    except (ValueError, NoSnapshot) as error:
        raise Failure(
            f"{snapshot}: not what `cortex status --json` prints: {error}", Exit.USAGE
        ) from error
    return explanation(view, RouteRequest(model=model, node=node), Policy(), now)


def _table(said: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table

    from cortex_gateway.cli.showing import plain

    table = Table(box=None, pad_edge=False)
    for heading in ("node", "", "reason", "detail"):
        table.add_column(heading, style="" if heading else "green")
    for one in said["considered"]:
        kept = bool(one.get("kept"))
        table.add_row(
            plain(one.get("node", "")),
            plain("✓" if kept else "–"),
            plain(one.get("reason", ""), "" if kept else "dim"),
            plain(one.get("detail", ""), "" if kept else "dim"),
        )
    head = plain(f"{said.get('resolved', '')}: {said.get('sentence', '')}", "bold")
    return Group(head, table) if said["considered"] else head
