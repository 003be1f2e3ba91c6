"""One file among several."""

import pytest

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources.choose import (
    choose,
    files_needed,
    is_model,
    is_model_folder,
    is_quant_of,
    missing_shards,
    model_folders,
    quant_of,
    shards_of,
)

REPO = [
    "README.md",
    "mmproj-model-F16.gguf",
    "m-Q4_K_M.gguf",
    "m-Q4_K_S.gguf",
    "m-UD-Q4_K_XL.gguf",
    "Q8_0/m-Q8_0-00001-of-00002.gguf",
    "Q8_0/m-Q8_0-00002-of-00002.gguf",
    "m.IQ2_XXS.gguf",
    "m-BF16.gguf",
]


@pytest.mark.parametrize(
    ("quant", "expected"),
    [
        ("Q4_K_M", "m-Q4_K_M.gguf"),
        ("q4_k_s", "m-Q4_K_S.gguf"),
        ("ud-q4_k_xl", "m-UD-Q4_K_XL.gguf"),
        ("q8_0", "Q8_0/m-Q8_0-00001-of-00002.gguf"),
        ("iq2_xxs", "m.IQ2_XXS.gguf"),
        ("bf16", "m-BF16.gguf"),
        ("m-bf16.gguf", "m-BF16.gguf"),
    ],
)
def test_a_quant_picks_its_file(quant: str, expected: str) -> None:
    """By label without regard to case, or by the whole name."""
    assert choose(REPO, quant, "here") == expected


def refuse(names: list[str], quant: str | None) -> PreflightFailed:
    """Return the refusal of a choice."""
    with pytest.raises(PreflightFailed) as caught:
        choose(names, quant, "here")
    return caught.value


def test_an_unknown_quant_names_the_nearest() -> None:
    """The error carries what was asked, what there is, and what is most like it."""
    error = refuse(REPO, "Q4_K_L")

    assert error.kind == "quant_not_found"
    assert error.extra["requested"] == "Q4_K_L"
    assert error.extra["nearest"] in {"Q4_K_M", "Q4_K_S", "UD-Q4_K_XL"}
    assert "Q8_0" in error.extra["available"]


def test_several_files_want_a_quant() -> None:
    """Without one, nothing is guessed; with one file nothing needs to be said."""
    error = refuse(REPO, None)

    assert error.kind == "quant_not_found"
    assert error.extra["available"] == ["Q8_0", "BF16", "Q4_K_M", "Q4_K_S", "UD-Q4_K_XL", "IQ2_XXS"]
    assert choose(["a.gguf", "mmproj.gguf", "x.txt"], None, "here") == "a.gguf"


def test_two_files_of_one_quant_are_told_apart_by_name() -> None:
    """The label alone does not decide, so whole names are offered."""
    error = refuse(["a-Q4_0.gguf", "b-Q4_0.gguf"], "Q4_0")

    assert error.extra["available"] == ["a-Q4_0", "b-Q4_0"]
    assert choose(["a-Q4_0.gguf", "b-Q4_0.gguf"], "b-q4_0", "here") == "b-Q4_0.gguf"


def test_no_gguf_is_another_format() -> None:
    """A repository of other formats is told as such."""
    assert refuse(["model.safetensors"], None).kind == "unsupported_format"


def test_shards_belong_together() -> None:
    """The first stands for all of them."""
    assert is_model("m-00001-of-00002.gguf")
    assert not is_model("m-00002-of-00002.gguf")
    assert shards_of("d/m-00001-of-00002.gguf") == (
        "d/m-00001-of-00002.gguf",
        "d/m-00002-of-00002.gguf",
    )
    assert shards_of("m.gguf") == ("m.gguf",)
    assert quant_of("SmolLM2-135M-Instruct.Q4_1.gguf") == "Q4_1"
    assert quant_of("plain.gguf") is None


def test_a_model_of_safetensors_is_a_folder() -> None:
    """Weights and what they mean, and no GGUF: that is another model in the same place."""
    assert is_model_folder(["config.json", "a.safetensors"])
    assert not is_model_folder(["config.json", "a.bin"])
    assert not is_model_folder(["a.safetensors"])
    assert not is_model_folder(["config.json", "a.safetensors", "a.gguf"])
    assert model_folders(["config.json", "4bpw/config.json", "4bpw/m.safetensors"]) == ("4bpw",)


def test_only_what_is_loaded_is_needed() -> None:
    """No second copy of the weights, no adapter, nothing of other folders; weights come last."""
    names = [
        "config.json", "README.md", "model.safetensors", "consolidated.safetensors",
        "adapter_model.safetensors", "additional_chat_templates/tool_use.jinja", "x/config.json",
        "x/model.safetensors",
    ]  # fmt: skip

    assert files_needed(names, "") == (
        "additional_chat_templates/tool_use.jinja",
        "config.json",
        "model.safetensors",
    )
    assert files_needed(names, "x") == ("x/config.json", "x/model.safetensors")
    assert files_needed(["consolidated.safetensors"], "") == ("consolidated.safetensors",)


def test_shards_that_are_promised_are_missed() -> None:
    """By the names of the others; a name that promises 99999 is answered with few."""
    here = ["m-00001-of-00003.safetensors", "m-00003-of-00003.safetensors"]

    assert missing_shards(here) == ("m-00002-of-00003.safetensors",)
    assert missing_shards(["model.safetensors"]) == ()
    assert len(missing_shards(["m-00001-of-99999.safetensors"])) == 1


@pytest.mark.parametrize(
    ("quant", "repo", "expected"),
    [
        ("4.0bpw", "org/Model-4.0bpw-exl2", True),
        ("4", "org/Model-exl2-4_0bpw", True),
        ("gptq", "org/Model-GPTQ", True),
        ("6.0bpw", "org/Model-4.0bpw-exl2", False),
    ],
)
def test_a_repository_may_be_of_one_quant(quant: str, repo: str, *, expected: bool) -> None:
    """Its name says so."""
    assert is_quant_of(quant, repo) is expected
