"""From files and environment to what `cortex serve` runs with, or a sentence about the mistake."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cortex_core.exposure import refuse_strangers
from cortex_core.keys import load_keys
from cortex_core.settings import (
    Catalogue,
    CortexSettings,
    load_catalogue,
    load_cortex_settings,
)
from cortex_gateway.policies import policy_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What was read, and from where. `file` None: built-in defaults; `notes` are worth a line."""

    file: Path | None
    settings: CortexSettings
    catalogue: Catalogue
    notes: tuple[str, ...] = ()


def load_configuration(file: Path | None, environment: Mapping[str, str]) -> Configuration:
    """Return the configuration of `file` and `CORTEX_*` variables. Raises ConfigError.

    A catalogue that was named must exist. The default one, `models.toml` beside `file`, may be
    absent: a cortex without it serves what its neurons have.
    """
    settings = load_cortex_settings(file, environment)
    refuse_strangers(settings)
    if (keys := settings.access.keys_file) is not None and keys.is_file():
        load_keys(keys)
    policy_of(settings)  # a user's own policy that cannot be used is a mistake in the configuration
    if "models_config" in settings.model_fields_set:
        return Configuration(
            file=file, settings=settings, catalogue=load_catalogue(settings.models_config)
        )
    folder = file.parent.resolve() if file else Path.cwd()
    beside = folder / settings.models_config
    settings = settings.model_copy(update={"models_config": beside})
    if beside.is_file():
        return Configuration(file=file, settings=settings, catalogue=load_catalogue(beside))
    note = f"no {beside}: the catalogue is empty, only what neurons already hold is served"
    return Configuration(file=file, settings=settings, catalogue=Catalogue(), notes=(note,))


def findings(settings: CortexSettings, catalogue: Catalogue) -> tuple[str, ...]:
    """Return what is valid on its own and cannot work together."""
    nodes = {entry.name for entry in settings.neurons}
    gateway = settings.gateway
    found = [
        f"neurons.{entry.name}.token_file: {entry.token_file}: no such file"
        for entry in settings.neurons
        if entry.token_file is not None and not entry.token_file.is_file()
    ]
    named = {
        "access.keys_file": settings.access.keys_file,
        "tls.cert_file": settings.tls.cert_file,
        "tls.key_file": settings.tls.key_file,
        "tls.ca_file": settings.tls.ca_file,
    }
    found += [
        f"{key}: {file}: no such file"
        for key, file in named.items()
        if file is not None and not file.is_file()
    ]
    found += [
        f"models.{entry.id}.{key}: {name!r} is not among the neurons"
        for entry in catalogue.models
        for key in ("pinned_on", "preferred_on", "excluded_from")
        for name in getattr(entry, key)
        if name not in nodes
    ]
    if gateway.listen == gateway.metrics_listen and not gateway.listen.endswith(":0"):
        found.append(f"gateway.metrics_listen: {gateway.listen} is gateway.listen already")
    return tuple(found)
