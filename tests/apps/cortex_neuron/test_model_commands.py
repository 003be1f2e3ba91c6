"""`neuron pull`, `list`, `rm` and `inspect`, as they are typed."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cortex_neuron.commands import app
from cortex_neuron.sources.hub_cache import Repository
from tests.apps.cortex_neuron.exllama.model_folders import Model, write_model
from tests.apps.cortex_neuron.sources.hub_stand_in import REPO, Hub, serving
from tests.fake_nvml.gpus import H100, RTX_3090, Gpus


@pytest.fixture(name="hub")
def _hub(tmp_path: Path) -> Iterator[Hub]:
    folder = write_model(tmp_path / "published", Model(stored="exl2", vocabulary=8000))
    hub = Hub()
    hub.branches["4.0bpw"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub.files["README.md"] = b"quants are branches"
    with serving(hub):
        yield hub


@pytest.fixture(name="environment")
def _environment(tmp_path: Path, hub: Hub) -> dict[str, str]:
    return {
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_ENDPOINT": hub.url,
        "NEURON_CACHE_DIR": str(tmp_path / "cache"),
    }


def run(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Return exit status, stdout and stderr of `neuron`."""
    result = CliRunner(env=environment or {}).invoke(app, arguments)
    return result.exit_code, result.stdout, result.stderr


def told(*arguments: str, environment: dict[str, str] | None = None) -> Any:
    """Return what `neuron` prints as JSON."""
    return json.loads(run(*arguments, "--json", environment=environment)[1])


def test_a_model_comes_is_seen_and_goes(environment: dict[str, str]) -> None:
    """From nothing to nothing; the path that is printed is the model."""
    source = f"hf:{REPO}"
    code, out, _ = run("pull", source, "-q", "4.0bpw", environment=environment)
    path = Path(out.strip())
    (row,) = told("list", environment=environment)
    seen = told("inspect", source, "-q", "4.0bpw", environment=environment)
    gone = told("rm", source, environment=environment)

    assert code == 0
    assert row["source"] == f"{source}@4.0bpw"
    assert (row["state"], row["format"], row["quant"]) == ("ok", "EXL2", "exl2 4.0bpw")
    assert seen["path"] == str(path) == row["path"]
    assert gone["freed_bytes"] > 100_000
    assert told("list", environment=environment) == []
    assert not path.exists()


def test_a_table_names_what_is_wrong(environment: dict[str, str], tmp_path: Path) -> None:
    """A model that was fetched whole and then damaged; and how it is pulled again."""
    source = f"hf:{REPO}@4.0bpw"
    path = Path(run("pull", source, environment=environment)[1].strip())
    weights = (path / "model.safetensors").resolve()
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size - 1)
    code, out, _ = run("list", environment=environment)
    looked = run("inspect", source, environment=environment)
    again = run("pull", source, environment=environment)

    assert code == 0
    assert "corrupt: model.safetensors is truncated" in out
    assert looked[0] == 1
    assert "corrupt: model.safetensors is truncated" in looked[2]
    assert again[0] == 0
    assert told("list", environment=environment)[0]["state"] == "ok"


def test_a_pull_that_brings_nothing_usable_is_not_well(
    hub: Hub, environment: dict[str, str]
) -> None:
    """It is here and cannot be loaded: said at once, not when somebody waits for an answer."""
    del hub.branches["4.0bpw"]["tokenizer.json"]
    code, out, err = run("pull", f"hf:{REPO}@4.0bpw", environment=environment)

    assert code == 1
    assert Path(out.strip()).is_dir()
    assert "not_found: there is no tokenizer.json" in err


def test_a_pull_that_was_killed_is_gone_on_with(hub: Hub, environment: dict[str, str]) -> None:
    """By another process, from the byte where the first one was; its lock died with it."""
    hub.stall_after = 1_500_000
    command = [sys.executable, "-m", "cortex_neuron", "pull", f"hf:{REPO}@4.0bpw"]
    repository = Repository(Path(environment["HF_HUB_CACHE"]), REPO)
    with subprocess.Popen(command, env={**os.environ, **environment}) as first:
        until(lambda: repository.partial_bytes == 1_500_000)
        first.kill()
    hub.go_on.set()
    hub.stall_after = None
    hub.asked.clear()
    again = subprocess.run(
        command,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert again.returncode == 0, again.stderr
    assert hub.fetched == [("model.safetensors", "bytes=1500000-")]
    assert repository.partial_bytes == 0


def until(happened: Callable[[], bool]) -> None:
    """Wait for something, for a minute at most."""
    limit = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pull", "ftp:somewhere"), 2, "unknown scheme"),
        (("pull", f"hf:{REPO}", "-q", "5.0bpw"), 1, "did you mean '4.0bpw'?"),
        (("pull", "hf:org/none"), 1, "no repository"),
        (("rm", f"hf:{REPO}"), 1, "not in this node's cache"),
        (("rm", "/models/mine.gguf"), 1, "delete it yourself"),
        (("inspect", f"hf:{REPO}"), 1, f"neuron pull hf:{REPO}"),
        (("inspect", "/nowhere/model"), 1, "there is no /nowhere/model"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    environment: dict[str, str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    """On stderr, with the exit status that says whose mistake it is."""
    status, _, err = run(*arguments, environment=environment)

    assert (status, "Traceback" in err) == (code, False)
    assert said in err


def test_inspect_shows_all_of_a_folder(tmp_path: Path) -> None:
    """What it is, what it needs in every cache mode, and that no CPU runs it."""
    model = Model(layers=4, hidden=1024, heads=8, kv_heads=4, head_dim=128, stored="exl2")
    folder = write_model(tmp_path / "model", model, template=False)
    code, out, _ = run("inspect", str(folder), "--context", "4096")
    said = told("inspect", str(folder), "--context", "4096")

    assert code == 0
    for words in ("exl2 4.0bpw", "LlamaForCausalLM", "tensor parallel: yes", "Q6", "for 4096"):
        assert words in out
    assert "no chat template" in out
    assert [one["cache_mode"] for one in said["memory"]] == ["FP16", "Q8", "Q6", "Q4"]
    assert said["memory"][0]["parts_mb"]["cache"] == 4096 * 4 * 4 * 128 * 4 >> 20
    assert said["warnings"] == ["there is no chat template: only completions are served"]
    assert said["problems"] == []


def test_inspect_shows_a_gguf_and_where_it_fits(demo_model: Path) -> None:
    """On this machine, whatever it has: the smallest model there is fits somewhere."""
    said = told("inspect", str(demo_model))
    code, out, _ = run("inspect", str(demo_model))

    assert code == 0
    assert said["format"] == "GGUF"
    assert said["places"][0]["devices"] == [0]
    assert all(fit["longest"] > 0 for fit in said["places"][0]["fits"])
    assert "where it fits now" in out
    assert "q8_0" in out


def test_inspect_shows_where_a_large_model_fits(here: Gpus, tmp_path: Path) -> None:
    """70B on a 3090 and an H100: each alone, by layers and by tensors, in every cache mode."""
    here.plug(0, RTX_3090)
    here.plug(1, H100)
    model = Model(
        layers=80, hidden=8192, heads=64, kv_heads=8, head_dim=128, intermediate=28672,
        vocabulary=128256, context=131072, stored="exl2",
    )  # fmt: skip
    folder = write_model(tmp_path / "model", model)
    said = told("inspect", str(folder), "--context", "32768")
    _, out, _ = run("inspect", str(folder), "--context", "32768")
    fits = {
        (*place["devices"], place["split"]): [fit["fits_now"] for fit in place["fits"]]
        for place in said["places"]
    }

    assert fits == {
        (0, "whole"): [False] * 4,
        (1, "whole"): [True] * 4,
        (0, 1, "layers"): [True] * 4,
        (0, 1, "tensors"): [True] * 4,
    }
    assert [one["parts_mb"]["cache"] for one in said["memory"]] == [10240, 5440, 4160, 2880]
    assert "cuda 0, cuda 1 tensor-parallel" in out


def test_old_cards_need_more(here: Gpus, tmp_path: Path) -> None:
    """Without flash-attention scores are written down: less is left for the context."""
    model = Model(layers=8, hidden=4096, heads=32, kv_heads=8, head_dim=128, context=131072)
    folder = write_model(tmp_path / "model", model)
    longest = []
    for capability in ("8.6", "6.1"):
        here.plug(0, RTX_3090, total=6000, used=0, cc=capability)
        longest.append(told("inspect", str(folder))["places"][0]["fits"][0]["longest"])

    assert 0 < longest[1] < longest[0]
