"""What an EXL3 folder says, and what it is thought to need."""

import json
from pathlib import Path
from typing import Any

import pytest

from cortex_core.errors import InvalidRequest, PreflightFailed
from cortex_core.settings import ExllamaSettings
from cortex_core.wire import Device
from cortex_neuron.exllama.exl3 import Exl3Facts, probe_exl3
from cortex_neuron.exllama.exl3_harness import ExLlamaV3Harness
from tests.apps.cortex_neuron.exllama.model_folders import Model, write_model

HARNESS = ExLlamaV3Harness(ExllamaSettings(), environment={})
CARD = Device(index=0, kind="cuda", vram_total_mb=24576, compute_capability="8.6")
OTHER = Device(index=1, kind="cuda", vram_total_mb=12288, compute_capability="8.9")
OLD = Device(index=0, kind="cuda", vram_total_mb=24576, compute_capability="7.5")


def model(folder: Path, quantised: dict[str, Any] | None = None, **config: Any) -> Path:
    """Write a model that says it is EXL3."""
    made = write_model(folder, Model(layers=32, kv_heads=8, heads=32, head_dim=128, hidden=4096,
                                     intermediate=512, context=131072))  # fmt: skip
    said = json.loads((made / "config.json").read_text())
    said |= {"quantization_config": quantised or {"quant_method": "exl3", "bits": 4.0}, **config}
    (made / "config.json").write_text(json.dumps(said))
    return made


def options(folder: Path, *devices: Device, **more: Any) -> Any:
    """Return the options that a model runs with."""
    return HARNESS.configure(
        HARNESS.probe(folder), model_id="m", path=folder, devices=devices, options=more
    ).options


def test_facts_are_read(tmp_path: Path) -> None:
    """From config.json and from the headers."""
    facts = probe_exl3(model(tmp_path / "m"))

    assert (facts.quant, facts.context_length) == ("exl3 4.0bpw", 131072)
    assert facts.kv_elements == 2 * 32 * 8 * 128
    assert 0 < facts.device_bytes < facts.file_bytes
    assert facts.capabilities == ("chat", "completion")


def test_an_architecture_that_only_the_library_knows_is_let_through(tmp_path: Path) -> None:
    """It says itself what it cannot run."""
    facts = probe_exl3(model(tmp_path / "m", architectures=["BrandNewForCausalLM"]))

    assert facts.architecture == "BrandNewForCausalLM"


@pytest.mark.parametrize(
    ("break_it", "kind"),
    [
        (lambda made: (made / "config.json").unlink(), "not_found"),
        (lambda made: (made / "config.json").write_text("{}"), "corrupt"),
        (lambda made: next(made.glob("*.safetensors")).write_bytes(b"x"), "corrupt"),
    ],
)
def test_what_is_broken_is_refused(tmp_path: Path, break_it: Any, kind: str) -> None:
    """Before a process is started."""
    made = model(tmp_path / "m")
    break_it(made)

    with pytest.raises(PreflightFailed) as caught:
        probe_exl3(made)
    assert caught.value.kind == kind


def test_weights_of_the_predecessor_are_sent_there(tmp_path: Path) -> None:
    """exllamav3 does not read them."""
    with pytest.raises(PreflightFailed) as caught:
        probe_exl3(model(tmp_path / "m", {"quant_method": "exl2"}))

    assert caught.value.extra["harness"] == "exllamav2"


def test_a_context_is_as_long_as_its_share_of_the_smallest_card_allows(tmp_path: Path) -> None:
    """Each device bears an even share."""
    made = model(tmp_path / "m")
    one, two = (options(made, *cards)["context"] for cards in ((OTHER,), (CARD, OTHER)))
    facts = probe_exl3(made)
    longer = HARNESS.configure(
        facts, model_id="m", path=made, devices=[OTHER], options={"context": one + 256}
    )
    spec = HARNESS.configure(facts, model_id="m", path=made, devices=[OTHER])

    assert isinstance(facts, Exl3Facts)
    assert HARNESS.estimate(facts, spec) <= 12288 < HARNESS.estimate(facts, longer)
    assert one < two <= 131072
    assert options(made, OTHER, cache_mode="Q4")["context"] > 2 * one


def test_what_the_library_cannot_do_is_refused(tmp_path: Path) -> None:
    """Old cards, and options of its predecessor's."""
    made = model(tmp_path / "m")

    with pytest.raises(InvalidRequest) as old:
        options(made, OLD)
    with pytest.raises(InvalidRequest) as stretched:
        options(made, CARD, rope_scale=2.0)
    assert old.value.code == "unsupported_device"
    assert stretched.value.param == "options.rope_scale"
