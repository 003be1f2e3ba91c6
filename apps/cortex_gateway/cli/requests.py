"""`cortex ps` and `cortex cancel`: the requests in flight, and the end of one."""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
from typing import Annotated
from urllib.parse import quote

import typer

from cortex_gateway.cli.fleet import DEFAULT_ENDPOINT, AsJson, Endpoint


def ps(
    all_: Annotated[
        bool, typer.Option("--all", "-a", help="Also the last hundred that have ended.")
    ] = False,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: AsJson = False,
) -> None:
    """List the requests in flight: who asks for what, where it is, how far."""
    from cortex_gateway.cli import view
    from cortex_gateway.cli.asking import Service

    service = Service.at(endpoint)
    said = service.get("/fleet/requests")
    listed = view.read(view.RequestList, said, service.endpoint)
    if as_json:
        typer.echo(json.dumps(said))
        return
    from cortex_gateway.cli import showing
    from cortex_gateway.cli.request_tables import ended, in_flight

    screen = showing.console()
    screen.print(in_flight(listed.in_flight))
    if all_ and listed.ended:
        screen.print(ended(listed.ended))


def cancel(
    request: Annotated[str, typer.Argument(help="Its id, from `cortex ps`.", show_default=False)],
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: AsJson = False,
) -> None:
    """End a request: its client gets an error, its engine stops, its seat is free."""
    from cortex_gateway.cli.asking import Service

    said = Service.at(endpoint).delete(f"/fleet/requests/{quote(request, safe='')}")
    if as_json:
        typer.echo(json.dumps(said))
        return
    count = said.get("count", 1) if isinstance(said, dict) else 1
    typer.echo(f"{request} is cancelled" + (f" ({count} requests)" if count != 1 else ""))
