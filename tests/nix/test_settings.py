"""What the modules render is read by the program's own loader: they can say nothing it ignores."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cortex_core.exposure import refuse_strangers
from cortex_core.loading import ConfigError
from cortex_core.settings import (
    Catalogue,
    CortexSettings,
    NeuronEntry,
    NeuronSettings,
    load_catalogue,
    load_cortex_settings,
    load_neuron_settings,
)
from tests.nix.asking import Nix, mistake
from tests.nix.toml_text import toml_text

Files = dict[str, dict[str, Any]]


def load(
    files: Files, folder: Path
) -> tuple[CortexSettings | None, Catalogue | None, NeuronSettings | None]:
    """Return what the program makes of the files of one machine. Raises ConfigError."""
    for name, content in files.items():
        (folder / name).write_text(toml_text(content), encoding="utf-8")
    gateway = "cortex.toml" in files
    settings = load_cortex_settings(folder / "cortex.toml", {}) if gateway else None
    catalogue = load_catalogue(folder / "models.toml") if gateway else None
    node = load_neuron_settings(folder / "neuron.toml", {}) if "neuron.toml" in files else None
    for daemon in (settings, node):
        if daemon is not None:
            refuse_strangers(daemon)
    return settings, catalogue, node


def test_what_every_case_renders_is_read(nix: Nix, tmp_path: Path) -> None:
    """Whatever Nix takes, the program takes, and starts with."""
    read = 0
    for case in nix.ask("cases").values():
        if not case["refused"] and not case["failing"]:
            load(case["files"], tmp_path)
            read += len(case["files"])

    assert read > 12


def test_who_is_reached_by_strangers_is_judged_alike(nix: Nix, tmp_path: Path) -> None:
    """What the assertions of Nix refuse, the program would refuse to start with."""
    for name in ("public-gateway", "public-gateway-v6", "public-metrics", "public-node"):
        case = nix.ask("cases")[name]
        assert case["failing"]
        with pytest.raises(ConfigError, match="is reached from other machines"):
            load(case["files"], tmp_path)


def test_the_example_fleet_is_read(nix: Nix, tmp_path: Path) -> None:
    """Each machine's files, and the gateway knows both nodes."""
    fleet = nix.ask("fleet")

    settings, catalogue, _ = load(fleet["gateway"]["files"], tmp_path)
    assert settings is not None
    assert catalogue is not None
    assert [entry.name for entry in settings.neurons] == ["atlas", "hermes"]
    assert [entry.id for entry in catalogue.models] == ["bge-m3", "qwen3-8b"]
    for name in ("atlas", "hermes"):
        load(fleet[name]["files"], tmp_path)


@pytest.mark.parametrize(
    ("module", "file"), [("cortex_gateway", "cortex.toml"), ("cortex_neuron", "neuron.toml")]
)
def test_what_a_build_of_the_system_asks(nix: Nix, tmp_path: Path, module: str, file: str) -> None:
    """`config check` misses only what will be on the machine, and ends with 2 for a typo."""
    for name, content in nix.ask("cases.everything-said.files").items():
        (tmp_path / name).write_text(toml_text(content), encoding="utf-8")
    command = [sys.executable, "-P", "-m", module, "config", "check", "-c", str(tmp_path / file)]

    well = subprocess.run(command, capture_output=True, text=True, check=False)
    with (tmp_path / file).open("a", encoding="utf-8") as more:
        more.write("tpyo = 1\n")
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (well.returncode, wrong.returncode) == (1, 2), well.stderr
    findings = well.stdout.splitlines()[1:]
    assert [one for one in findings if "no such f" not in one] == []


def test_options_arrive_where_the_program_looks(nix: Nix, tmp_path: Path) -> None:
    """Every option of the case that says everything is found again in the settings."""
    settings, catalogue, node = load(nix.ask("cases.everything-said.files"), tmp_path)

    assert settings is not None
    assert settings.gateway.listen == "[::]:8080"
    assert settings.gateway.metrics_listen == "10.0.0.1:31314"
    assert settings.eviction.strategy == "cost"
    assert settings.timeouts.drain == 90.5
    assert settings.timeouts.hold == 5
    assert settings.models_config == tmp_path / "models.toml"
    assert settings.neurons == (
        NeuronEntry(name="atlas", endpoint="http://192.168.1.20:13131"),
        NeuronEntry(
            name="hermes",
            endpoint="https://hermes.lan",
            token_file=Path("/run/credentials/cortex.service/neuron-hermes"),
        ),
    )
    credentials = Path("/run/credentials/cortex.service")
    assert settings.access.keys_file == credentials / "keys"
    assert settings.tls.cert_file == credentials / "certificate"
    assert settings.tls.key_file == credentials / "certificate-key"
    assert settings.tls.ca_file == credentials / "certificates-of-nodes"
    assert catalogue is not None
    assert catalogue.aliases == {"claude-*": "qwen"}
    (model,) = catalogue.models
    assert (model.id, model.pinned_on, model.keep_alive_secs) == ("qwen", ("atlas",), 60.5)
    assert model.limit is not None
    assert (model.limit.context, model.options) == (4096, {"parallel": 2})
    assert node is not None
    assert (node.host, node.port) == ("0.0.0.0", 9000)
    credentials = Path("/run/credentials/neuron.service")
    assert node.token_file == credentials / "token"
    assert node.tls.cert_file == credentials / "certificate"
    assert node.tls.key_file == credentials / "certificate-key"
    assert node.model_dirs == (Path("/srv/models"),)
    assert node.cache_dir == Path("/srv/cache")
    assert [one.model_id for one in node.default_models] == ["qwen"]
    assert node.harness.llamacpp.threads == 4
    assert (node.timeouts.drain, node.timeouts.unload) == (30, 5)


def test_the_defaults_are_the_programs(nix: Nix, tmp_path: Path) -> None:
    """An option left alone means what a missing line in the file means."""
    settings, _, node = load(nix.ask("cases.one-machine.files"), tmp_path)

    assert settings is not None
    assert node is not None
    plain = CortexSettings()
    apart = {"neurons": settings.neurons, "models_config": settings.models_config}
    assert settings == plain.model_copy(update=apart)
    assert node == NeuronSettings().model_copy(update={"cache_dir": node.cache_dir})


def test_no_secret_is_rendered(nix: Nix) -> None:
    """Files name where a credential will be, never the file of the operator."""
    rendered = str(nix.ask("cases.everything-said.files"))

    assert "/run/secrets" not in rendered
    assert "/var/lib/acme" not in rendered


@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        ("cortex.nix", "gateway.metrics_listen =", "gateway.metrics_address =", "metrics_address"),
        ("cortex.nix", '"token_file"', '"token_path"', "token_path"),
        ("cortex.nix", '"keys_file"', '"key_file"', "did you mean 'keys_file'"),
        ("neuron.nix", "model_dirs =", "models_dirs =", "did you mean 'model_dirs'"),
        ("neuron.nix", "model_id = id", "model = id", "default_models"),
        ("cortex.nix", "{ inherit id; }", "{ name = id; }", "models"),
    ],
)
def test_a_renamed_setting_is_seen(
    nix: Nix, source: Path, tmp_path: Path, file: str, right: str, wrong: str, said: str
) -> None:
    """A key that the program does not know fails the check, and is named."""
    mistake(source, f"nixos-modules/{file}", right, wrong)

    files = nix.ask("cases.everything-said.files", source)
    with pytest.raises(ConfigError, match=said):
        load(files, tmp_path)
