"""SIGHUP takes over what changed, drops nobody, and refuses what cannot be used."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.conversations import Talk, ask, entry
from tests.fleet.processes import Daemon, Workbench, eventually, write_toml

pytestmark = pytest.mark.fleet


def listed(cortex: Daemon) -> list[str]:
    """Return the ids that clients see."""
    return [row["id"] for row in cortex.http.get(f"{cortex.url}/v1/models").json()["data"]]


def nodes(cortex: Daemon) -> dict[str, Any]:
    """Return the nodes by name."""
    return {one["name"]: one for one in cortex.http.get(f"{cortex.url}/fleet").json()["nodes"]}


def test_models_and_nodes_change_without_dropping_a_stream(
    bench: Workbench, demo_model: Path
) -> None:
    """A second node and a second model arrive in the middle of an answer."""
    one, two = bench.neuron("n1"), bench.neuron("n2")
    cortex = bench.cortex({"n1": one.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")
    talk = Talk(cortex, "demo", text="Tell a story.", max_tokens=100)
    talk.under_way()

    models = [entry("demo", demo_model), entry("other", demo_model, pinned_on=["n2"])]
    write_toml(bench.folder / "models.toml", {"models": models, "aliases": {"gpt": "demo"}})
    text = (bench.folder / "cortex.toml").read_text()
    wider = text.replace("neurons = [", f'neurons = [{{"name" = "n2", "endpoint" = "{two.url}"}}, ')
    (bench.folder / "cortex.toml").write_text(wider)
    cortex.signal(signal.SIGHUP)
    eventually(lambda: listed(cortex) == ["demo", "gpt", "other"])
    eventually(lambda: nodes(cortex).get("n2", {}).get("healthy"))

    assert ask(cortex, "other").status_code == 200
    assert [line["model"] for line in two.events("model.loaded")] == ["other"]
    told = talk.end()
    assert told.done
    assert told.errors() == []

    (bench.folder / "cortex.toml").write_text(text)
    cortex.signal(signal.SIGHUP)
    eventually(lambda: list(nodes(cortex)) == ["n1"])


def test_a_configuration_that_cannot_be_used_changes_nothing(
    bench: Workbench, demo_model: Path
) -> None:
    """It is named in the log, and the old one stays."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])

    (bench.folder / "models.toml").write_text('[[models]]\nidd = "typo"\n')
    cortex.signal(signal.SIGHUP)

    assert "did you mean 'id'" in cortex.last_event("config.rejected")["error"]
    assert listed(cortex) == ["demo"]
    assert ask(cortex, "demo").status_code == 200


def test_a_node_finds_new_files_in_its_folders(bench: Workbench, demo_model: Path) -> None:
    """A file dropped into `model_dirs` is offered after SIGHUP, and can be asked for."""
    folder = bench.folder / "models"
    folder.mkdir()
    neuron = bench.neuron(model_dirs=[str(folder)], harness={"llamacpp": {"context": 512}})
    cortex = bench.cortex({"n1": neuron.url}, [])
    before = listed(cortex)

    (folder / "mine.gguf").symlink_to(demo_model)
    neuron.signal(signal.SIGHUP)
    eventually(lambda: listed(cortex) == ["mine"])

    assert before == []
    assert ask(cortex, "mine").status_code == 200
