"""The example files name every setting with its default, and load as they are."""

import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from cortex_core.settings import (
    Catalogue,
    CortexSettings,
    NeuronSettings,
    load_catalogue,
    load_cortex_settings,
    load_neuron_settings,
)
from cortex_core.wire import LoadRequest
from cortex_gateway.cli.simulation_files import FleetFile, WorkloadFile, load_fleet, load_workload

CORTEX = Path(str(files("cortex_gateway") / "examples" / "cortex.toml"))
MODELS = Path(str(files("cortex_gateway") / "examples" / "models.toml"))
NEURON = Path(str(files("cortex_neuron") / "examples" / "neuron.toml"))
FLEET = Path(str(files("cortex_gateway") / "examples" / "fleet.toml"))
WORKLOAD = Path(str(files("cortex_gateway") / "examples" / "workload.toml"))


def keys(model: type[BaseModel]) -> Iterator[str]:
    """Yield every key that a settings file may hold; a load request has its own contract."""
    for name, field in model.model_fields.items():
        yield name
        for inner in nested(field.annotation):
            if inner is not LoadRequest:
                yield from keys(inner)


def nested(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the settings models inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from nested(argument)


@pytest.mark.parametrize(
    ("file", "model"),
    [
        (CORTEX, CortexSettings),
        (MODELS, Catalogue),
        (NEURON, NeuronSettings),
        (FLEET, FleetFile),
        (WORKLOAD, WorkloadFile),
    ],
)
def test_every_setting_is_named(file: Path, model: type[BaseModel]) -> None:
    """A new setting without its line in the example fails here."""
    text = file.read_text()
    missing = [
        key
        for key in keys(model)
        if not re.search(
            rf"^(# )?{key} = |^(# )?\[+([\w.]+\.)?{key}(\.\w+)*\]+$", text, re.MULTILINE
        )
    ]

    assert missing == []


def test_the_gateway_example_shows_the_defaults() -> None:
    """Without its nodes, the example changes nothing."""
    loaded = load_cortex_settings(CORTEX, {})
    defaults = CortexSettings()

    assert len(loaded.neurons) == 2
    assert loaded.models_config == MODELS
    for name in ("gateway", "access", "tls", "eviction", "routing", "timeouts", "observation"):
        assert getattr(loaded, name) == getattr(defaults, name)


def test_the_node_example_shows_the_defaults() -> None:
    """Without its default model, the example changes nothing."""
    loaded = load_neuron_settings(NEURON, {})

    assert [one.model_id for one in loaded.default_models] == ["smollm2-135m-instruct"]
    assert loaded.model_copy(update={"default_models": ()}) == NeuronSettings()


def test_the_catalogue_example_loads() -> None:
    """With its aliases."""
    catalogue = load_catalogue(MODELS)

    assert len(catalogue.models) == 2
    assert set(catalogue.aliases.values()) == {entry.id for entry in catalogue.models}


def test_the_simulation_examples_load() -> None:
    """They fit the catalogue's example: its pinned node is one of the machines."""
    fleet = load_fleet(FLEET, load_catalogue(MODELS))
    names = {machine.name for machine in fleet.machines}

    assert [set(model.profile.pinned_on) <= names for model in fleet.models] == [True]
    assert load_workload(WORKLOAD, None).requests == 10_000
