"""`cortex keys`: who may ask, entered in the file that cortex reads.

Settings and rich are imported inside the commands: `cortex version` needs none of them.
"""

# The flags of a command are booleans, and its imports wait until it runs.
# ruff: noqa: FBT002, PLC0415

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cortex_core import commands
from cortex_core.commands import SYSTEM_CONFIG, Exit, Failure
from cortex_gateway.cli.daemon import AsJson, ConfigFile

if TYPE_CHECKING:
    from cortex_core.keys import KeyEntry

KeysFile = Annotated[
    Path | None,
    typer.Option("--file", "-f", metavar="FILE", help="Instead of [access] keys_file."),
]
Name = Annotated[str, typer.Argument(help="Whose key it is.", show_default=False)]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Default: no limit.")]


def create(  # noqa: PLR0913, PLR0917  # each is a flag
    name: Name,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Only this model, or alias; may hold one '*', may be repeated."),
    ] = None,
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
    max_in_flight: Limit = None,
    days: Annotated[
        float | None, typer.Option(min=0, help="Days until it expires. Default: never.")
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="May see and steer the fleet, and read metrics.")
    ] = False,
    file: KeysFile = None,
    config: ConfigFile = None,
) -> None:
    """Make a key and print it, once; only its digest is kept."""
    from cortex_core.keys import add_key, new_secret
    from cortex_core.loading import ConfigError

    path, secret = _keys_file(file, config), new_secret()
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        add_key(
            path,
            secret,
            name=name,
            admin=admin,
            models=tuple(model) if model else None,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
            max_in_flight=max_in_flight,
            expires=None if days is None else now + timedelta(days=days),
        )
    except ConfigError as error:
        raise Failure(str(error), Exit.USAGE) from error
    typer.echo(f"{name} is entered in {path}; a running cortex knows it after SIGHUP", err=True)
    typer.echo(secret)


def show(file: KeysFile = None, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the keys and what they allow."""
    entries = _load(_keys_file(file, config))
    now = datetime.now(UTC)
    if as_json:
        said = [
            entry.model_dump(mode="json", exclude_none=True, exclude={"sha256"})
            | {"state": _state(entry, now)}
            for entry in entries
        ]
        typer.echo(json.dumps(said))
        return
    from rich.table import Table
    from rich.text import Text

    from cortex_gateway.cli import showing

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("KEY", "STATE", "MODELS", "REQUESTS/MIN", "TOKENS/MIN", "AT A TIME", "EXPIRES"):
        table.add_column(heading)
    for entry in entries:
        table.add_row(*map(Text, _cells(entry, now)))
    showing.console().print(table if entries else Text("no keys"))


def revoke(name: Name, file: KeysFile = None, config: ConfigFile = None) -> None:
    """Take a key back; who used it is still known."""
    from cortex_core.keys import revoke_key
    from cortex_core.loading import ConfigError

    path = _keys_file(file, config)
    try:
        revoke_key(path, name)
    except ConfigError as error:
        raise Failure(str(error), Exit.USAGE) from error
    typer.echo(f"{name} is revoked in {path}; a running cortex obeys after SIGHUP", err=True)


def _keys_file(named: Path | None, config: Path | None) -> Path:
    """Return the file that was named, else the configured one. Raises Failure."""
    from cortex_core.loading import ConfigError
    from cortex_core.settings import load_cortex_settings

    if named is not None:
        return named
    file = commands.find_config(config, "cortex.toml", here=Path.cwd(), system=SYSTEM_CONFIG)
    try:
        settings = load_cortex_settings(file, os.environ)
    except ConfigError as error:
        raise Failure(str(error), Exit.USAGE) from error
    if settings.access.keys_file is None:
        where = file or "cortex.toml"
        raise Failure(f"set [access] keys_file in {where}, or name one with --file", Exit.USAGE)
    return settings.access.keys_file


def _load(path: Path) -> "tuple[KeyEntry, ...]":
    from cortex_core.keys import load_keys
    from cortex_core.loading import ConfigError

    try:
        return load_keys(path).keys
    except ConfigError as error:
        raise Failure(str(error), Exit.USAGE) from error


def _state(entry: "KeyEntry", now: datetime) -> str:
    if entry.revoked is not None:
        return "revoked"
    return "expired" if entry.expires is not None and entry.expires <= now else "valid"


def _cells(entry: "KeyEntry", now: datetime) -> tuple[str, ...]:
    models = "all" if entry.models is None else ", ".join(entry.models) or "none"
    limits = (entry.requests_per_minute, entry.tokens_per_minute, entry.max_in_flight)
    return (
        f"{entry.name} (admin)" if entry.admin else entry.name,
        _state(entry, now),
        models,
        *("-" if one is None else str(one) for one in limits),
        "never" if entry.expires is None else entry.expires.strftime("%Y-%m-%d %H:%M UTC"),
    )
