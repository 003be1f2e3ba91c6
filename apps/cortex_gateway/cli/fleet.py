"""`cortex status`, `models`, `load` and `unload`: questions to a running cortex.

HTTP, pydantic and rich are imported inside the commands: `cortex version` needs none of them.
"""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cortex_core.commands import Exit, Failure

if TYPE_CHECKING:
    from cortex_gateway.cli.asking import Service
    from cortex_gateway.cli.progress import Show

DEFAULT_ENDPOINT = "http://127.0.0.1:31313"

# Longer than the longest cold load by default: the answer may come when it is up.
LOAD_ANSWER_SECS = 1860.0
POLL_SECS = 0.5
TOLERATED_MISSES = 5

Endpoint = Annotated[
    str, typer.Option("--endpoint", "-e", metavar="URL", help="Address of cortex.")
]
Node = Annotated[str | None, typer.Option("--node", "-n", help="Only on this node.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Model = Annotated[str, typer.Argument(help="Id or alias of the model.", show_default=False)]


def status(endpoint: Endpoint = DEFAULT_ENDPOINT, as_json: AsJson = False) -> None:
    """Show nodes, devices and resident models; 1 unless every part of the fleet is well."""
    from cortex_gateway.cli import view
    from cortex_gateway.cli.asking import Service

    service = Service.at(endpoint)
    said = service.get("/fleet")
    fleet = view.read(view.Fleet, said, service.endpoint)
    if as_json:
        typer.echo(json.dumps(said))
    else:
        from cortex_gateway.cli import showing

        showing.console().print(showing.fleet(fleet))
    if fleet.status != "ok":
        raise typer.Exit(int(Exit.UNWELL))


def models(endpoint: Endpoint = DEFAULT_ENDPOINT, as_json: AsJson = False) -> None:
    """List every model that some node serves or could serve."""
    from cortex_gateway.cli import view
    from cortex_gateway.cli.asking import Service

    service = Service.at(endpoint)
    said = service.get("/v1/models")
    listed = view.read(view.ModelList, said, service.endpoint)
    if as_json:
        typer.echo(json.dumps(said))
        return
    from cortex_gateway.cli import showing

    showing.console().print(showing.models(listed.data))


def load(
    model: Model,
    node: Node = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: AsJson = False,
) -> None:
    """Load a model and wait until it is up. Ctrl-C stops the waiting, not the load."""
    from cortex_gateway.cli.asking import Service

    service = Service.at(endpoint)
    try:
        answer = _load(service, model, node, quiet=as_json)
    except KeyboardInterrupt:
        raise Failure(f"{model} goes on loading; `cortex status` shows how far it is") from None
    if as_json:
        typer.echo(json.dumps(answer))
        return
    typer.echo(f"{model} is loaded on {answer.get('node') or 'a node'}")


def unload(
    model: Model,
    node: Node = None,
    drain_secs: Annotated[
        float | None,
        typer.Option("--drain", min=0, help="Seconds that requests in flight get to end."),
    ] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: AsJson = False,
) -> None:
    """Unload a model, from one node or from all."""
    from cortex_gateway.cli.asking import Service

    body: dict[str, Any] = {"model": model}
    if node is not None:
        body["node"] = node
    if drain_secs is not None:
        body["drain_secs"] = drain_secs
    said = Service.at(endpoint).post(
        "/fleet/models/unload", body, within_secs=120.0 + (drain_secs or 0)
    )
    nodes = said.get("nodes", ()) if isinstance(said, dict) else ()
    if as_json:
        typer.echo(json.dumps(said))
    elif nodes:
        typer.echo(f"{model} is unloaded from {', '.join(map(str, nodes))}")
    else:
        typer.echo(f"{model} was not loaded")


def _load(service: "Service", model: str, node: str | None, *, quiet: bool) -> dict[str, Any]:
    """Ask for the load and return `{"status":"loaded","node"}` when it is up. Raises Failure."""
    from cortex_gateway.cli.progress import progress

    asked: dict[str, Any] = {"model": model} if node is None else {"model": model, "node": node}
    with progress(quiet=quiet) as show:
        show(model, "asking", None, None)
        answer = service.post("/fleet/models/load", asked, within_secs=LOAD_ANSWER_SECS)
        if not isinstance(answer, dict):
            raise Failure(f"cortex answered the load with {answer!r}")
        if answer.get("status") == "loaded":
            return answer
        place = node or answer.get("node")
        return {"status": "loaded", "node": _follow(service, model, place, show)}


def _follow(service: "Service", model: str, node: str | None, show: "Show") -> str:
    """Watch the fleet until the model is up, and return where. Raises Failure."""
    from cortex_gateway.cli import loading, view
    from cortex_gateway.cli.asking import Unreachable

    seen, since, misses = False, time.monotonic(), 0
    while True:
        try:
            fleet = view.read(view.Fleet, service.get("/fleet"), service.endpoint)
        except Unreachable:
            # A reload or a short outage does not end the load, so it need not end the waiting.
            misses += 1
            if misses >= TOLERATED_MISSES:
                raise
            time.sleep(POLL_SECS)
            continue
        misses, waited = 0, time.monotonic() - since
        verdict = loading.judge(fleet, fleet.canonical(model), node, seen=seen, waited_secs=waited)
        match verdict:
            case loading.Up(on):
                return on
            case loading.Failed(reason):
                raise Failure(reason)
            case loading.Underway(on=on, progress=progress):
                if on is not None:
                    seen, since = True, time.monotonic()
                done = progress.done_bytes if progress else None
                total = progress.total_bytes if progress else None
                show(model, loading.describe(verdict), done, total)
        time.sleep(POLL_SECS)
