"""`cortex serve`, `up`, `config check` and `version`.

Settings, the server and rich are imported inside the commands: together they take longer to import
than `cortex version` and shell completion may take to answer.
"""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cortex_core import __version__, commands
from cortex_core.commands import SYSTEM_CONFIG, Exit, Failure, Listener

if TYPE_CHECKING:
    from cortex_core.settings import Catalogue, CortexSettings
    from cortex_gateway.cli.configuration import Configuration

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="cortex.toml. Default: ./cortex.toml, then /etc/cortex/cortex.toml, then defaults.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def serve(
    config: ConfigFile = None,
    exit_with_stdin: Annotated[bool, typer.Option("--exit-with-stdin", hidden=True)] = False,
) -> None:
    """Run the gateway until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""
    loaded = _load(config)
    for note in loaded.notes:
        typer.echo(f"cortex: {note}", err=True)
    with commands.needing("gateway"):
        from cortex_gateway.app import serve as run_gateway
    from cortex_core.loading import ConfigError
    from cortex_gateway.cli.configuration import load_configuration

    def reload() -> "tuple[CortexSettings, Catalogue]":
        again = load_configuration(loaded.file, os.environ)
        return again.settings, again.catalogue

    if exit_with_stdin:
        commands.end_with_stdin()
    with commands.listening(_listeners(loaded)):
        try:
            run_gateway(loaded.settings, loaded.catalogue, reload)
        except ConfigError as error:
            raise Failure(f"{loaded.file or 'cortex.toml'}: {error}", Exit.USAGE) from error


def up(
    models: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Your own models.toml; its first model is loaded."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the API; 0: any.")] = 31313,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the metrics; 0: any.")
    ] = 31314,
    neuron_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the neuron; 0: any.")
    ] = 13131,
    preload: Annotated[
        bool, typer.Option("--preload/--no-preload", help="Load the first model at once.")
    ] = True,
) -> None:
    """Run everything on this machine: one neuron, one cortex and a small model, on loopback."""
    from cortex_gateway.up import UpOptions, run_up

    options = UpOptions(
        models=models,
        port=port,
        metrics_port=metrics_port,
        neuron_port=neuron_port,
        preload=preload,
    )
    raise typer.Exit(int(run_up(options, os.environ)))


def check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Read the configuration as `serve` would; 2 if it cannot start, 1 if a part cannot work."""
    from cortex_gateway.cli.configuration import findings

    try:
        loaded = _load(config)
    except Failure as failure:
        if as_json:
            typer.echo(json.dumps({"ok": False, "errors": str(failure).splitlines()}))
        raise
    found = findings(loaded.settings, loaded.catalogue)
    if as_json:
        typer.echo(json.dumps(_check_answer(loaded, found)))
    else:
        settings, catalogue = loaded.settings, loaded.catalogue
        typer.echo(
            f"{loaded.file or 'built-in defaults'}: {'not well' if found else 'ok'} "
            f"(neurons: {len(settings.neurons)}, models: {len(catalogue.models)}, "
            f"aliases: {len(catalogue.aliases)})"
        )
        for line in (*loaded.notes, *found):
            typer.echo(f"  {line}")
    if found:
        raise typer.Exit(int(Exit.UNWELL))


def version(as_json: AsJson = False) -> None:
    """Print the version."""
    here = {"version": __version__, "python": platform.python_version()}
    typer.echo(json.dumps(here) if as_json else f"cortex {here['version']}")


def _load(named: Path | None) -> "Configuration":
    from cortex_core.loading import ConfigError
    from cortex_gateway.cli.configuration import load_configuration

    here = Path.cwd()
    file = commands.find_config(named, "cortex.toml", here=here, system=SYSTEM_CONFIG)
    try:
        return load_configuration(file, os.environ)
    except ConfigError as error:
        raise Failure(str(error), Exit.USAGE) from error


def _listeners(loaded: "Configuration") -> tuple[Listener, ...]:
    from cortex_core.settings import Address

    gateway, where = loaded.settings.gateway, loaded.file or "cortex.toml"
    return tuple(
        Listener(*Address.parse(text), f"set [gateway] {key} in {where}, or {variable}")
        for text, key, variable in (
            (gateway.listen, "listen", "CORTEX_GATEWAY__LISTEN"),
            (gateway.metrics_listen, "metrics_listen", "CORTEX_GATEWAY__METRICS_LISTEN"),
        )
    )


def _check_answer(loaded: "Configuration", found: tuple[str, ...]) -> dict[str, object]:
    return {
        "ok": not found,
        "file": str(loaded.file) if loaded.file else None,
        "findings": list(found),
        "notes": list(loaded.notes),
        "settings": loaded.settings.model_dump(mode="json"),
        "catalogue": loaded.catalogue.model_dump(mode="json"),
    }
