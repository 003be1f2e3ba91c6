"""`cortex top`: the fleet as it works, looked at again and again."""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cortex_gateway.cli.fleet import DEFAULT_ENDPOINT, TOLERATED_MISSES, AsJson, Endpoint

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cortex_gateway.cli.asking import Service
    from cortex_gateway.cli.rates import Look, Rates
    from cortex_gateway.cli.view import Fleet, RequestList


def top(
    every: Annotated[
        float, typer.Option("--every", min=0.1, max=60, help="Seconds between two looks.")
    ] = 1.0,
    times: Annotated[
        int | None,
        typer.Option("--times", min=1, help="Look so often. Default: until Ctrl-C, or once."),
    ] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: AsJson = False,
) -> None:
    """Watch nodes, devices, models, requests and their speed; --json prints a line each time."""
    from cortex_gateway.cli.asking import Service

    service = Service.at(endpoint)
    live = sys.stdout.isatty() and not as_json
    if times is None and not live:
        times = 1
    try:
        if live:
            _show(service, every, times)
        else:
            _print(service, every, times, as_json=as_json)
    except KeyboardInterrupt:
        return


class _Seen(NamedTuple):
    fleet: "Fleet"
    listed: "RequestList"
    rates: "Rates"
    said: dict[str, Any]


def _print(service: "Service", every: float, times: int | None, *, as_json: bool) -> None:
    from cortex_gateway.cli import showing

    for seen in _looks(service, every, times):
        if as_json:
            speed = {"requests_per_sec": seen.rates.requests, "tokens_per_sec": seen.rates.tokens}
            typer.echo(json.dumps({**seen.said, "rates": speed}))
        else:
            showing.console().print(_picture(seen))


def _show(service: "Service", every: float, times: int | None) -> None:
    from rich.live import Live

    from cortex_gateway.cli import showing

    with Live(console=showing.console(), auto_refresh=False, screen=times is None) as live:
        for seen in _looks(service, every, times):
            live.update(_picture(seen), refresh=True)


def _looks(service: "Service", every: float, times: int | None) -> Iterator[_Seen]:
    """Yield what is seen each time; a short outage ends nothing. Raises Failure for a long one."""
    from cortex_gateway.cli import rates
    from cortex_gateway.cli.asking import Unreachable

    # One look more, so that the first that is shown has a speed.
    before = rates.look(_ask(service)[1], time.monotonic())
    seen = misses = 0
    while times is None or seen < times:
        time.sleep(every)
        try:
            fleet, listed, said = _ask(service)
        except Unreachable:
            misses += 1
            if misses >= TOLERATED_MISSES:
                raise
            continue
        misses = 0
        after: Look = rates.look(listed, time.monotonic())
        yield _Seen(fleet, listed, rates.rates(before, after), said)
        before = after
        seen += 1


def _ask(service: "Service") -> "tuple[Fleet, RequestList, dict[str, Any]]":
    from cortex_gateway.cli import view

    fleet, listed = service.get("/fleet"), service.get("/fleet/requests")
    said = {"fleet": fleet, "requests": listed}
    return (
        view.read(view.Fleet, fleet, service.endpoint),
        view.read(view.RequestList, listed, service.endpoint),
        said,
    )


def _picture(seen: _Seen) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from cortex_gateway.cli import showing
    from cortex_gateway.cli.request_tables import in_flight

    speed = Text(
        f"{seen.rates.tokens:.1f} tokens/s · {seen.rates.requests:.1f} requests/s", style="bold"
    )
    return Group(showing.fleet(seen.fleet), Text(""), speed, in_flight(seen.listed.in_flight))
