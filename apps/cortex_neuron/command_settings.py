"""The options that the commands of `neuron` share, and the settings that come of them.

Settings are imported inside: they take longer to import than `neuron version` may take to answer.
"""

# ruff: noqa: PLC0415

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cortex_core import commands
from cortex_core.commands import SYSTEM_CONFIG, Exit, Failure

if TYPE_CHECKING:
    from cortex_core.settings import NeuronSettings

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="neuron.toml. Default: ./neuron.toml, then /etc/cortex/neuron.toml, then defaults.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def find_config(named: Path | None) -> Path | None:
    """Return the configuration file to read; None stands for the defaults."""
    return commands.find_config(named, "neuron.toml", here=Path.cwd(), system=SYSTEM_CONFIG)


def load_settings(file: Path | None, port: int | None = None) -> "NeuronSettings":
    """Return the settings of `file`, with `port` where one was given. Raises Failure."""
    from cortex_core.loading import ConfigError

    try:
        return read_settings(file, port)
    except ConfigError as error:
        raise Failure(str(error), Exit.USAGE) from error


def require_guard(file: Path | None, settings: "NeuronSettings") -> None:
    """Raise Failure when the node would obey strangers."""
    from cortex_core.exposure import refuse_strangers
    from cortex_core.loading import ConfigError

    try:
        refuse_strangers(settings)
    except ConfigError as error:
        raise Failure(f"{file or 'neuron.toml'}: {error}", Exit.USAGE) from error


def read_settings(file: Path | None, port: int | None = None) -> "NeuronSettings":
    """Return the settings of `file`. Raises ConfigError."""
    from cortex_core.settings import load_neuron_settings

    settings = load_neuron_settings(file, os.environ)
    return settings if port is None else settings.model_copy(update={"port": port})
