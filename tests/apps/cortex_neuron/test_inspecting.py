"""Models of every kind, looked over."""

import json
from pathlib import Path
from typing import Any

import pytest

from cortex_core.errors import PreflightFailed
from cortex_neuron.inspecting import inspect
from tests.apps.cortex_neuron.exllama.model_folders import Model, write_model


def test_a_gguf_is_for_llama_cpp(demo_model: Path) -> None:
    """The real small model: what it is, and nothing wrong."""
    found = inspect(demo_model)

    assert (found.format, found.harness) == ("GGUF", "llamacpp")
    assert found.facts is not None
    assert found.facts.architecture == "llama"
    assert found.details["layers"] > 0
    assert (found.problems, found.warnings) == ((), ())


def test_a_damaged_gguf_is_a_problem(demo_model: Path, tmp_path: Path) -> None:
    """It is there, so it is no failure of the question."""
    path = tmp_path / "half.gguf"
    with demo_model.open("rb") as whole:
        path.write_bytes(whole.read(50_000))
    found = inspect(path)

    assert found.facts is None
    assert [one.kind for one in found.problems] == ["corrupt"]
    assert found.file_bytes == 50_000


@pytest.mark.parametrize(
    ("stored", "name"), [("fp16", "16-bit"), ("exl2", "EXL2"), ("gptq", "GPTQ")]
)
def test_folders_are_for_exllamav2(tmp_path: Path, stored: str, name: str) -> None:
    """By what their weights are."""
    found = inspect(write_model(tmp_path / "model", Model(stored=stored)))

    assert (found.format, found.harness, found.problems) == (name, "exllamav2", ())
    assert found.details["kv_heads"] == 2
    assert found.details["end_tokens"] == [2]
    assert found.details["tensor_parallel"] is (stored == "exl2")


@pytest.mark.parametrize(
    ("method", "harness"), [("exl3", "exllamav3"), ("awq", "exllamav2"), ("bitsandbytes", None)]
)
def test_what_exllamav2_does_not_read_is_shown_all_the_same(
    tmp_path: Path, method: str, harness: str | None
) -> None:
    """Its kind, its dimensions, and why not."""
    extra: dict[str, Any] = {"quantization_config": {"quant_method": method}}
    found = inspect(write_model(tmp_path / "model", Model(extra=extra)))

    assert found.format == method.upper()
    assert harness is None or found.harness == harness
    assert found.details["layers"] == 2
    assert [one.kind for one in found.problems] == ["unsupported_quant"]


def test_nonsense_in_the_config_hides_nothing_else(tmp_path: Path) -> None:
    """The weights are still looked at."""
    folder = write_model(tmp_path / "model", Model(), shards=2)
    (folder / "config.json").write_text(json.dumps(["no"]))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"\0" * 4)
    found = inspect(folder)

    assert found.format == "unknown"
    assert [one.kind for one in found.problems] == ["corrupt", "corrupt"]


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    """A path that leads nowhere."""
    with pytest.raises(PreflightFailed) as caught:
        inspect(tmp_path / "gone.gguf")

    assert caught.value.kind == "not_found"
