"""What preflight lets through and holds back, against what exllamav2 itself makes of it."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.architectures import ARCHITECTURES
from cortex_neuron.exllama.preflight import probe
from tests.apps.cortex_neuron.exllama.model_folders import Model, write_model

torch = pytest.importorskip("torch")
pytest.importorskip("exllamav2_ext")
exllamav2 = pytest.importorskip("exllamav2")

from exllamav2 import architecture as upstream  # noqa: E402


def test_the_table_has_every_architecture_that_is_known() -> None:
    """Those that the package compares with, and no other."""
    source = inspect.getsource(upstream.ExLlamaV2ArchParams)
    named = set(re.findall(r'"(\w+(?:ForCausalLM|ForConditionalGeneration|LMHeadModel))"', source))

    assert named == set(ARCHITECTURES)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_table_says_what_the_package_says(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is tied, gated, fused, parallel, turned, renamed; none falls back to Llama."""
    ours = ARCHITECTURES[name]
    config: dict[str, Any] = {"vision_config": {"model_type": ours.vision or "x"}}
    theirs = upstream.ExLlamaV2ArchParams(name, config)
    lm = theirs.lm

    assert "unknown architecture" not in capsys.readouterr().out
    assert theirs.lm_prefix == ours.prefix
    assert list(ours.renames) == (theirs.keymap or []) or ours.sees_images
    assert lm.is_moe == ours.experts
    assert lm.mlp_gate == ours.gated
    assert lm.parallel_decoder_blocks == ours.parallel_blocks
    assert lm.mqa == ours.one_kv_head
    assert lm.default_use_qk_norm == ours.query_key_norm
    assert (lm.rope_style != upstream.RopeStyle.NONE) == ours.rotary
    assert (lm.sliding_rope_theta is not None) == (ours.rope_tables == 2)
    assert lm.keys["learned_pos_emb"] == ours.positions
    assert lm.default_inner_dim_mult == ours.inner_factor
    assert (["lm_head"] not in lm.expect_keys) == ours.head_is_embedding
    if name != "Qwen3MoeForCausalLM":
        assert lm.supports_tp == ours.tensor_parallel


@pytest.mark.parametrize(
    "extra",
    [
        {"architectures": ["MambaForCausalLM"]},
        {"rope_scaling": {"rope_type": "spiral"}},
        {"rope_theta": None, "rope_parameters": {"rope_type": "yarn", "rope_theta": 5e5}},
    ],
)
def test_what_the_package_takes_without_a_word_is_held_back(
    tmp_path: Path, extra: dict[str, Any]
) -> None:
    """It would run, and say nonsense."""
    folder = write_model(tmp_path / "model", Model(extra=extra))

    assert exllamav2.ExLlamaV2Config(str(folder)).num_hidden_layers == 2
    with pytest.raises(PreflightFailed):
        probe(folder)


@pytest.mark.parametrize("cut", [1, 100_000])
def test_a_truncated_file_is_held_back_where_the_package_fails_late(
    tmp_path: Path, cut: int
) -> None:
    """It reads headers as well, and does not compare them with the file."""
    folder = write_model(tmp_path / "model", Model())
    file = folder / "model.safetensors"
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size - cut)

    exllamav2.ExLlamaV2Config(str(folder))
    with pytest.raises(PreflightFailed, match="truncated"):
        probe(folder)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Phi3ForCausalLM"])
def test_a_tensor_that_is_missing_stops_both(tmp_path: Path, architecture: str) -> None:
    """With its name."""
    folder = write_model(tmp_path / "model", Model(architecture=architecture, layers=1))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))

    with pytest.raises(ValueError, match=r"model\.layers\.1"):
        exllamav2.ExLlamaV2Config(str(folder))
    with pytest.raises(PreflightFailed, match=r"model\.layers\.1"):
        probe(folder)
