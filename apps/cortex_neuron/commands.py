"""The commands of `neuron`: run the daemon of this machine, and see what it would find.

Settings, the server, device probing and rich are imported inside the commands: together they take
longer to import than `neuron version` and shell completion may take to answer.
"""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
import platform
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cortex_core import __version__, commands
from cortex_core.commands import EXIT_CODES, Exit, Failure, Listener, reporting
from cortex_neuron import model_commands
from cortex_neuron.command_settings import (
    AsJson,
    ConfigFile,
    find_config,
    load_settings,
    read_settings,
    require_guard,
)

if TYPE_CHECKING:
    from cortex_core.wire import Device, DeviceHealth
    from cortex_neuron.discovery import Machine

__all__ = ["app"]

app = typer.Typer(
    name="neuron",
    help="The daemon on each machine: knows the hardware, runs inference.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a log wants a plain trace
)
config_app = typer.Typer(help="The configuration.", epilog=EXIT_CODES, no_args_is_help=True)
app.add_typer(config_app, name="config")
model_commands.add_to(app)


@app.command(epilog=EXIT_CODES)
@reporting
def serve(
    config: ConfigFile = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Instead of the configured port.")
    ] = None,
    exit_with_stdin: Annotated[bool, typer.Option("--exit-with-stdin", hidden=True)] = False,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; SIGHUP reads the configuration again."""
    from cortex_core.loading import ConfigError

    file = find_config(config)
    settings = load_settings(file, port)
    with commands.needing("neuron"):
        from cortex_neuron.app import serve as run_neuron

    if exit_with_stdin:
        commands.end_with_stdin()
    remedy = f"set port in {file or 'neuron.toml'}, NEURON_PORT or --port"
    with commands.listening((Listener(settings.host, settings.port, remedy),)):
        try:
            run_neuron(settings, lambda: read_settings(file, port))
        except ConfigError as error:
            raise Failure(f"{file or 'neuron.toml'}: {error}", Exit.USAGE) from error


@app.command(epilog=EXIT_CODES)
@reporting
def discover(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show the devices of this machine; 1 if there is none to run a model on."""
    settings = load_settings(find_config(config), None)
    with commands.needing("neuron"):
        from cortex_neuron.discovery import probe_machine, read_machine

    machine = probe_machine(settings.devices)
    now = {one.index: one for one in read_machine(machine, {}).devices}
    if as_json:
        typer.echo(json.dumps(_discovered(machine, now)))
    else:
        _show(machine, now)
    if not machine.devices:
        raise typer.Exit(int(Exit.UNWELL))


@config_app.command(epilog=EXIT_CODES)
@reporting
def check(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Read the configuration as `serve` would; 2 if it cannot start, 1 if a part cannot work."""
    file = find_config(config)
    try:
        settings = load_settings(file, None)
        require_guard(file, settings)
    except Failure as failure:
        if as_json:
            typer.echo(json.dumps({"ok": False, "errors": str(failure).splitlines()}))
        raise
    findings = [
        f"model_dirs: {folder}: no such folder"
        for folder in settings.model_dirs
        if not folder.is_dir()
    ]
    findings += [
        f"{key}: {path}: no such file"
        for key, path in (
            ("token_file", settings.token_file),
            ("tls.cert_file", settings.tls.cert_file),
            ("tls.key_file", settings.tls.key_file),
        )
        if path is not None and not path.is_file()
    ]
    if as_json:
        said = settings.model_dump(mode="json")
        where = str(file) if file else None
        typer.echo(
            json.dumps({"ok": not findings, "file": where, "findings": findings, "settings": said})
        )
    else:
        state = "not well" if findings else "ok"
        typer.echo(
            f"{file or 'built-in defaults'}: {state} (listens on {settings.host}:{settings.port}, "
            f"default models: {len(settings.default_models)})"
        )
        for line in findings:
            typer.echo(f"  {line}")
    if findings:
        raise typer.Exit(int(Exit.UNWELL))


@app.command(epilog=EXIT_CODES)
@reporting
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    here = {"version": __version__, "python": platform.python_version()}
    typer.echo(json.dumps(here) if as_json else f"neuron {here['version']}")


def _discovered(machine: "Machine", now: Mapping[int, "DeviceHealth"]) -> dict[str, Any]:
    """Return what was found, as `/discovery` and `/health` say it; what is unknown is absent."""
    known = {
        "hostname": machine.hostname,
        "os": machine.os,
        "kernel": machine.kernel,
        "cuda_version": machine.cuda_version,
        "driver_version": machine.driver_version,
        "cuda_unavailable_reason": machine.cuda_unavailable_reason,
    }
    devices = [
        device.model_dump(mode="json", exclude_none=True)
        | (now[device.index].model_dump(exclude_none=True) if device.index in now else {})
        for device in machine.devices
    ]
    return {name: value for name, value in known.items() if value is not None} | {
        "devices": devices
    }


def _show(machine: "Machine", now: Mapping[int, "DeviceHealth"]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("DEVICE", "NAME", "TOTAL GiB", "USED", "FREE", "BUSY", "TEMP", "COMPUTE"):
        table.add_column(heading)
    for device in machine.devices:
        table.add_row(*(Text(cell) for cell in _cells(device, now.get(device.index))))
    console.print(Text(f"{machine.hostname}: {machine.os}, kernel {machine.kernel}"))
    if machine.driver_version:
        console.print(
            Text(f"driver {machine.driver_version}, CUDA {machine.cuda_version or 'unknown'}")
        )
    if machine.cuda_unavailable_reason:
        console.print(Text(f"no CUDA: {machine.cuda_unavailable_reason}"))
    for device in machine.devices:
        if (health := now.get(device.index)) is not None and health.fault is not None:
            console.print(Text(f"{device.kind} {device.index} cannot be used: {health.fault}"))
    console.print(table if machine.devices else Text("no device to run a model on"))


def _cells(device: "Device", now: "DeviceHealth | None") -> tuple[str, ...]:
    busy, temp = (now.utilization_pct, now.temp_c) if now else (None, None)
    return (
        f"{device.kind} {device.index}",
        device.name,
        _gib(device.vram_total_mb),
        _gib(now.vram_used_mb if now else None),
        _gib(now.vram_free_mb if now else None),
        "?" if busy is None else f"{busy:.0f} %",
        "?" if temp is None else f"{temp:.0f} °C",
        device.compute_capability or "-",
    )


def _gib(mib: int | None) -> str:
    return "?" if mib is None else f"{mib / 1024:.1f}"
