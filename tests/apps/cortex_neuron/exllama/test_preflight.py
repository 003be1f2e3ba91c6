"""Model folders, looked over before they are loaded."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.architectures import ARCHITECTURES
from cortex_neuron.exllama.preflight import examine, probe
from cortex_neuron.exllama.shape import (
    Unfit,
    check_positions,
    end_tokens,
    read_quantisation,
    read_shape,
)
from tests.apps.cortex_neuron.exllama.model_folders import Model, write_model

MODEL = Model(stored="exl2")


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", MODEL)


def change(folder: Path, **values: Any) -> None:
    """Change values in config.json; None removes one."""
    config = json.loads((folder / "config.json").read_text()) | values
    said = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(said))


def kind_of(folder: Path) -> str:
    """Return why the folder cannot be used."""
    with pytest.raises(PreflightFailed) as caught:
        probe(folder)
    return caught.value.kind


def test_a_sound_folder_says_what_it_is(folder: Path) -> None:
    """Everything that a harness and an operator want to know."""
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 2]}')
    facts = probe(folder)

    assert facts.architecture == "LlamaForCausalLM"
    assert facts.quant == "exl2 4.0bpw"
    assert (facts.context_length, facts.vocabulary, facts.embedding_length) == (8192, 512, 128)
    assert facts.kv_elements_per_token == 2 * 2 * 2 * 32
    assert facts.file_bytes == (folder / "model.safetensors").stat().st_size
    assert facts.capabilities == ("chat", "completion")
    assert facts.end_tokens == (2, 5)
    assert examine(folder).warnings == ()


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_every_architecture_is_laid_out(tmp_path: Path, architecture: str) -> None:
    """From the names its files have, plain; the weights add up to what is not the embedding."""
    known = ARCHITECTURES[architecture]
    extra: dict[str, Any] = {"vision_config": {"model_type": known.vision}} if known.vision else {}
    model = Model(
        architecture=architecture,
        experts=2 if known.experts else 0,
        own_head=not known.head_is_embedding,
        kv_heads=1 if known.one_kv_head else 2,
        extra=extra,
    )
    folder = write_model(tmp_path / "model", model)
    (folder / "preprocessor_config.json").write_text("{}")
    layout = probe(folder).layout

    assert len(layout.modules) == 3 + 2 * (1 if known.parallel_blocks else 2) + bool(
        known.positions
    )
    stored = sum(one.elements * 2 for one in _tensors(folder))
    head = 512 * 128 * 2 if known.head_is_embedding else 0
    repeated = 2 * 32 * 2 * (4 + 2 - 2) if known.query_key_norm else 0
    assert layout.weight_bytes + layout.host_bytes == stored + head + repeated


def _tensors(folder: Path) -> Any:
    from cortex_neuron.exllama.weights import read_weights  # noqa: PLC0415

    return read_weights(folder).tensors.values()


@pytest.mark.parametrize(
    ("values", "kind", "match"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "unsupported_arch", "MambaForCausalLM"),
        ({"architectures": ["LlavaForConditionalGeneration"]}, "unsupported_arch", "Llava"),
        ({"architectures": []}, "corrupt", "one architecture"),
        ({"architectures": ["LlamaForCausalLM"] * 2}, "corrupt", "one architecture"),
        ({"quantization_config": {"quant_method": "exl3"}}, "unsupported_quant", "exllamav3"),
        ({"quantization_config": {"quant_method": "gguf"}}, "unsupported_quant", "llamacpp"),
        ({"quantization_config": {"quant_method": "awq"}}, "unsupported_quant", "'awq'"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 8}},
            "unsupported_quant",
            "8 bits",
        ),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "corrupt", "EXL2 weights"),
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 4, "rope_theta": 1e6}},
            "unsupported_rope",
            "rope_parameters",
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_theta": 1e6}}},
            "unsupported_rope",
            "rope_parameters",
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            "unsupported_rope",
            "rope_parameters",
        ),
        ({"rope_scaling": {"type": "linear", "rope_type": "linear"}}, "unsupported_rope", "both"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "unsupported_rope", "lacks"),
        ({"rope_scaling": {"type": "longrope"}}, "unsupported_rope", "lacks long_factor"),
        ({"rope_scaling": {"type": "spiral"}}, "unsupported_rope", "'spiral'"),
        ({"hidden_size": None}, "corrupt", "hidden_size"),
        ({"hidden_size": 256}, "corrupt", "model.layers"),
        ({"num_hidden_layers": 3}, "corrupt", "model.layers.2"),
        ({"num_hidden_layers": 10**9}, "corrupt", "num_hidden_layers"),
        ({"num_hidden_layers": 10**6}, "corrupt", "1000000 layers"),
        ({"num_hidden_layers": "two"}, "corrupt", "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "corrupt", "heads"),
        ({"vision_config": {"model_type": "siglip"}}, "not_found", "preprocessor_config.json"),
    ],
)
def test_what_cannot_be_run_is_told_by_its_kind(
    folder: Path, values: dict[str, Any], kind: str, match: str
) -> None:
    """Before a byte of it reaches a device, and with what is the matter in the sentence."""
    change(folder, **values)
    with pytest.raises(PreflightFailed, match=match) as caught:
        probe(folder)

    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "values",
    [
        {"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"rope_parameters": {"rope_theta": 10000.0}},
        {"rope_scaling": {"rope_type": "default"}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {
            "rope_scaling": {"type": "yarn", "factor": 2, "original_max_position_embeddings": 512},
            "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0},
        },
        {"quantization_config": None},
        {"hidden_size": 128.0},
    ],
)
def test_what_only_looks_odd_is_run(folder: Path, values: dict[str, Any]) -> None:
    """Said twice, said by default, or said by the files alone."""
    change(folder, **values)

    assert probe(folder).quantisation.method == "exl2"


def spoil(folder: Path, name: str) -> None:
    """Write half a JSON document."""
    (folder / name).write_text('{"a": ')


@pytest.mark.parametrize(
    ("break_", "kind"),
    [
        (lambda folder: (folder / "config.json").unlink(), "not_found"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "not_found"),
        (lambda folder: spoil(folder, "config.json"), "corrupt"),
        (lambda folder: spoil(folder, "tokenizer.json"), "corrupt"),
        (lambda folder: spoil(folder, "tokenizer_config.json"), "corrupt"),
        (lambda folder: spoil(folder, "generation_config.json"), "corrupt"),
        (lambda folder: (folder / "config.json").write_text("[]"), "corrupt"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "corrupt"),
    ],
)
def test_the_small_files_are_read_too(
    folder: Path, break_: Callable[[Path], object], kind: str
) -> None:
    """Half a tokenizer is found now, not when the weights are on the device."""
    break_(folder)

    assert kind_of(folder) == kind


def test_a_type_that_the_loader_lacks_is_a_quantisation_it_lacks(tmp_path: Path) -> None:
    """FP8 weights look plain in config.json."""
    folder = write_model(tmp_path / "model", Model(dtype="F8_E4M3"))

    assert kind_of(folder) == "unsupported_quant"


def test_half_quantised_is_no_quantisation(tmp_path: Path) -> None:
    """As exllamav2 would find out with half of the model on the device."""
    folder = write_model(tmp_path / "model", MODEL)
    half, whole = Model().tensors, MODEL.tensors
    mixed = {name: one for name, one in whole.items() if ".layers.1." not in name}
    mixed |= {name: one for name, one in half.items() if ".layers.1." in name}
    from tests.apps.cortex_neuron.exllama.model_folders import write_tensors  # noqa: PLC0415

    write_tensors(folder / "model.safetensors", mixed)

    assert kind_of(folder) == "unsupported_quant"


def test_every_problem_is_listed(folder: Path) -> None:
    """The first is the error, and all are beside it."""
    (folder / "tokenizer.json").unlink()
    change(folder, architectures=["MambaForCausalLM"], rope_scaling={"type": "spiral"})
    with pytest.raises(PreflightFailed) as caught:
        probe(folder)
    kinds = [one["kind"] for one in caught.value.extra["problems"]]

    assert kinds == ["not_found", "unsupported_arch", "unsupported_rope"]
    assert caught.value.kind == "not_found"


def test_warnings_do_not_stop_a_model(tmp_path: Path) -> None:
    """No end token, no template: it runs, and who asks is told."""
    model = replace(MODEL, extra={"eos_token_id": None})
    folder = write_model(tmp_path / "model", model, template=False)
    found = examine(folder)

    assert found.facts is not None
    assert found.facts.capabilities == ("completion",)
    assert [one.partition(":")[0] for one in found.warnings] == [
        "no file names an end token",
        "there is no chat template",
    ]


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json"])
def test_a_template_may_have_a_file_of_its_own(tmp_path: Path, name: str) -> None:
    """As newer models have it."""
    folder = write_model(tmp_path / "model", MODEL, template=False)
    (folder / name).write_text('{"chat_template": "x"}')

    assert probe(folder).has_chat_template


def test_end_tokens_come_from_everywhere() -> None:
    """A number or a list, also inside text_config; nonsense is passed over."""
    assert end_tokens({"eos_token_id": 7}, {"eos_token_id": [7, 9, "x", True, -1]}) == (7, 9)
    assert end_tokens({"text_config": {"eos_token_id": 3}}, None) == (3,)
    assert end_tokens(None, {}) == ()


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
_keys = st.sampled_from(
    [
        *Model().config, "rope_scaling", "rope_parameters", "quantization_config", "text_config",
        "vision_config", "partial_rotary_factor", "sliding_window", "moe_intermediate_size",
    ]
)  # fmt: skip
_architectures = st.sampled_from([[name] for name in ARCHITECTURES])


@given(odd=st.dictionaries(_keys, _values, max_size=4), architecture=_architectures)
def test_no_config_brings_anything_down(odd: dict[str, Any], architecture: list[str]) -> None:
    """Whatever stands in config.json, it is read or Unfit."""
    config = {**Model().config, "architectures": architecture, **odd}
    for read in (read_shape, read_quantisation, check_positions):
        try:
            read(config)
        except Unfit:
            continue
    end_tokens(config, odd)
