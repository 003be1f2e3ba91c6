"""What `up` decides before anything starts."""

import json
import os
import shlex
import socket
import tomllib
from pathlib import Path

import pytest

from cortex_core.commands import Failure
from cortex_core.settings import Catalogue, ModelEntry, load_cortex_settings, load_neuron_settings
from cortex_gateway.up.plan import (
    SHIPPED_MODELS,
    Plan,
    UpOptions,
    child_environment,
    cortex_toml,
    make_plan,
    neuron_toml,
    try_it,
)

NASTY = 'a "quoted" \\ name\n\x7f with ünïcode and it\'s \U0001f600'


def plan(*models: ModelEntry) -> Plan:
    """Return a plan for these models; the first one is loaded."""
    return Plan(
        port=1,
        metrics_port=2,
        neuron_port=3,
        models=Path("/etc/models.toml"),
        catalogue=Catalogue(models=models),
        first=models[0] if models else None,
    )


def test_free_ports_are_distinct() -> None:
    """Three zeros are three ports."""
    made = make_plan(UpOptions(port=0, metrics_port=0, neuron_port=0))

    assert len({made.port, made.metrics_port, made.neuron_port}) == 3
    assert made.models == SHIPPED_MODELS


def test_a_busy_port_names_its_option() -> None:
    """Before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Failure, match=rf"127\.0\.0\.1:{port} .*--metrics-port N") as failure:
            make_plan(UpOptions(port=0, metrics_port=port, neuron_port=0))

    assert failure.value.code == 1


def test_one_port_twice_is_a_usage_error() -> None:
    """A port that is free can still only be had once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Failure, match="twice") as failure:
        make_plan(UpOptions(port=port, metrics_port=port, neuron_port=0))

    assert failure.value.code == 2


@pytest.mark.parametrize("text", ["", '[[models]]\nidd = "m"\n'])
def test_a_catalogue_that_is_of_no_use_is_a_usage_error(tmp_path: Path, text: str) -> None:
    """Empty, or wrong."""
    file = tmp_path / "models.toml"
    file.write_text(text)
    with pytest.raises(Failure) as failure:
        make_plan(UpOptions(models=file, port=0, metrics_port=0, neuron_port=0))

    assert failure.value.code == 2


def test_both_files_load_and_fit_together(tmp_path: Path) -> None:
    """What is written is what the daemons read, whatever a name looks like."""
    entry = ModelEntry(
        id=NASTY,
        source="/x",
        capabilities=("chat",),
        options={"a": {"b": [1, 2.5, True]}, "c d": NASTY},
    )
    made = plan(entry)
    (tmp_path / "c.toml").write_text(cortex_toml(made))
    (tmp_path / "n.toml").write_text(neuron_toml(made))
    cortex = load_cortex_settings(tmp_path / "c.toml", {})
    neuron = load_neuron_settings(tmp_path / "n.toml", {})

    assert cortex.gateway.listen == "127.0.0.1:1"
    assert cortex.neurons[0].endpoint == f"http://{neuron.host}:{neuron.port}"
    request = neuron.default_models[0]
    assert (request.model_id, request.source) == (NASTY, "/x")
    assert request.capabilities == ("chat",)
    assert dict(request.options) == dict(entry.options)


def test_what_up_decides_is_not_moved_by_the_environment() -> None:
    """Other variables still reach the daemons, and so do our modules."""
    made = child_environment({"NEURON_PORT": "1", "NEURON_HARNESS__LLAMACPP__THREADS": "2"})

    assert "NEURON_PORT" not in made
    assert made["NEURON_HARNESS__LLAMACPP__THREADS"] == "2"
    assert made["PYTHONPATH"].split(os.pathsep)


@pytest.mark.parametrize(
    ("capabilities", "path"), [((), "/v1/chat/completions"), (("embedding",), "/v1/embeddings")]
)
def test_the_curl_line_survives_the_shell(capabilities: tuple[str, ...], path: str) -> None:
    """Quotes in a name neither end the shell's string nor the JSON's."""
    words = shlex.split(try_it(plan(ModelEntry(id="it's", capabilities=capabilities))))

    assert words[:2] == ["curl", f"http://127.0.0.1:1{path}"]
    assert json.loads(words[-1])["model"] == "it's"


def test_the_shipped_catalogue_is_one_pinned_file_twice() -> None:
    """Same bytes for chat and for embeddings, checked against a digest."""
    chat, embedding = tomllib.loads(SHIPPED_MODELS.read_text())["models"]

    assert chat["id"] == "smollm2-135m-instruct"
    assert embedding["capabilities"] == ["embedding"]
    assert chat["source"] == embedding["source"]
    assert "#sha256=" in chat["source"]
