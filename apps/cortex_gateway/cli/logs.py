"""`cortex logs`: the last events of the gateway, of one request or node, and those to come."""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlencode

import typer

from cortex_gateway.cli.fleet import DEFAULT_ENDPOINT, POLL_SECS, TOLERATED_MISSES, AsJson, Endpoint

if TYPE_CHECKING:
    from rich.text import Text

    from cortex_gateway.cli.asking import Service

_WAIT_SECS = 20
_LEVELS = {"debug": "dim", "info": "green", "warning": "yellow", "error": "red", "critical": "red"}
_HEAD = ("timestamp", "level", "event", "exception")


def logs(
    request: Annotated[
        str | None, typer.Option("--request", "-r", help="Only of the request of this id.")
    ] = None,
    node: Annotated[str | None, typer.Option("--node", "-n", help="Only of this node.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="And what is to come.")] = False,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: AsJson = False,
) -> None:
    """Print the gateway's last events; --json prints each as it was logged."""
    from cortex_gateway.cli import showing
    from cortex_gateway.cli.asking import Service

    chosen = {"request": request, "node": node}
    asked = {name: value for name, value in chosen.items() if value is not None}
    screen = None if as_json else showing.console()
    try:
        for event in _events(Service.at(endpoint), asked, follow=follow):
            if screen is None:
                typer.echo(json.dumps(event))
            else:
                screen.print(_line(event), soft_wrap=True)
    except KeyboardInterrupt:
        return


def _events(service: "Service", asked: dict[str, str], *, follow: bool) -> Iterator[dict[str, Any]]:
    from cortex_gateway.cli import view
    from cortex_gateway.cli.asking import Unreachable

    after, wait, misses = 0, 0, 0
    while True:
        query = urlencode({**asked, "after": after, "wait_secs": wait})
        try:
            said = service.get(f"/fleet/logs?{query}", within_secs=_WAIT_SECS + 10.0)
        except Unreachable:
            misses += 1
            if after == 0 or misses >= TOLERATED_MISSES:
                raise
            time.sleep(POLL_SECS)
            continue
        misses = 0
        told = view.read(view.Events, said, service.endpoint)
        if told.missed:
            yield {"level": "warning", "event": "logs.missed", "count": told.missed}
        yield from told.events
        if not follow:
            return
        after, wait = told.next, _WAIT_SECS


def _line(event: dict[str, Any]) -> "Text":
    """Return an event as a line: when, how bad, what, and what it says more."""
    from rich.text import Text

    from cortex_gateway.cli.showing import plain

    level = str(event.get("level", ""))
    more = "  ".join(f"{key}={_value(event[key])}" for key in event if key not in _HEAD)
    when = str(event.get("timestamp", "")).partition(".")[0].replace("T", " ")
    line = Text.assemble(
        plain(when, "dim"),
        " ",
        plain(f"{level:8}", _LEVELS.get(level, "")),
        plain(f"{event.get('event', '')}  ", "bold"),
        plain(more),
    )
    for trace in str(event.get("exception", "")).splitlines():
        line.append("\n  ").append_text(plain(trace, "dim"))
    return line


def _value(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() else json.dumps(value)
