"""`cortex chat MODEL`: talk to a model, or ask it one thing."""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cortex_core.commands import Failure
from cortex_gateway.cli.fleet import DEFAULT_ENDPOINT, AsJson, Endpoint, Model

if TYPE_CHECKING:
    from rich.console import Console

    from cortex_gateway.cli.asking import Service
    from cortex_gateway.cli.conversing import Said

#: Longer than the longest cold load; signs of life come each second meanwhile.
_SILENCE_SECS = 600.0


def chat(
    model: Model,
    prompt: Annotated[
        str | None,
        typer.Argument(help="Ask this and end. Default: what a pipe brings, or a conversation."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", "-s", help="A system prompt.")] = None,
    endpoint: Endpoint = DEFAULT_ENDPOINT,
    as_json: AsJson = False,
) -> None:
    """Talk to a model: a line is a turn, Ctrl-C stops an answer, Ctrl-D ends."""
    from cortex_gateway.cli import showing
    from cortex_gateway.cli.asking import Service

    service = Service.at(endpoint)
    turns: list[dict[str, str]] = [{"role": "system", "content": system}] if system else []
    screen = None if as_json else showing.console()
    if prompt is None and not sys.stdin.isatty():
        prompt = sys.stdin.read()
    if prompt is not None:
        if not prompt.strip():
            raise Failure("there is nothing to ask: give a prompt, or pipe one in")
        said = _ask(service, model, [*turns, {"role": "user", "content": prompt}], screen)
        if as_json:
            typer.echo(json.dumps(said.as_json()))
        return
    while (line := _line_of(screen)) is not None:
        if not line.strip():
            continue
        turns.append({"role": "user", "content": line})
        try:
            said = _ask(service, model, turns, screen)
        except KeyboardInterrupt:
            turns.pop()
            typer.echo("  (stopped)")
            continue
        if as_json:
            typer.echo(json.dumps(said.as_json()))
        turns.append({"role": "assistant", "content": said.content})


def _line_of(screen: "Console | None") -> str | None:
    try:
        return input("" if screen is None else "> ")
    except (EOFError, KeyboardInterrupt):
        if screen is not None:
            screen.print()
        return None


def _ask(
    service: "Service", model: str, turns: list[dict[str, str]], screen: "Console | None"
) -> "Said":
    """Ask, show the answer as it comes, and return it. Raises Failure."""
    from rich.text import Text

    from cortex_gateway.cli.conversing import Said

    body: dict[str, Any] = {
        "model": model,
        "messages": turns,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    said = Said()
    wanted = {"x-cortex-progress": "true"}
    with service.stream("/v1/chat/completions", body, wanted, silence_secs=_SILENCE_SECS) as lines:
        for line in lines:
            for text, is_thought in said.take(line):
                if screen is not None:
                    screen.print(Text(text, style="dim" if is_thought else ""), end="")
    if screen is not None:
        screen.print()
    said.check()
    return said
