"""The harness for exllamav2: what a model needs, and what is said when it cannot be had."""

from pathlib import Path
from typing import Any

import pytest

from cortex_core.errors import EngineStartFailed, InvalidRequest, PreflightFailed
from cortex_core.settings import ExllamaSettings, NeuronSettings
from cortex_core.wire import Device
from cortex_neuron.engine_process import EngineFailed
from cortex_neuron.exllama.harness import ExLlamaV2Harness
from cortex_neuron.exllama.options import ExllamaOptions
from cortex_neuron.exllama.refusals import explain
from cortex_neuron.harness import EngineSpec
from cortex_neuron.harnesses import Harnesses, harness_of, make_harnesses
from tests.apps.cortex_neuron.exllama.model_folders import Model, write_model

CARD = Device(index=0, kind="cuda", uuid="GPU-1", vram_total_mb=24576, compute_capability="8.6")
OLD = Device(index=1, kind="cuda", uuid="GPU-2", vram_total_mb=8192, compute_capability="6.1")
CPU = Device(index=0, kind="cpu", vram_total_mb=8192)


def spec(
    folder: Path, devices: tuple[Device, ...] = (CARD,), **options: Any
) -> tuple[Any, EngineSpec]:
    """Return facts and spec of a model."""
    harness = ExLlamaV2Harness(ExllamaSettings(), environment={})
    facts = harness.probe(folder)
    return facts, harness.configure(
        facts, model_id="m", path=folder, devices=devices, options=options
    )


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A model whose whole context takes 16 GiB of cache."""
    return write_model(
        tmp_path / "large",
        Model(layers=32, heads=32, kv_heads=8, head_dim=128, hidden=4096, context=131072,
              intermediate=1024),
    )  # fmt: skip


def test_a_small_model_gets_all_of_its_context(tmp_path: Path) -> None:
    """There is room for it."""
    _, found = spec(write_model(tmp_path / "m", Model(context=8192)))

    assert (found.options["context"], found.options["cache_tokens"]) == (8192, 8192)


def test_a_context_is_no_longer_than_memory_allows(large: Path) -> None:
    """The longest that fits: one page more would not."""
    facts, found = spec(large, (OLD,))
    context = found.options["context"]
    harness = ExLlamaV2Harness(ExllamaSettings(), environment={})
    longer = harness.configure(
        facts, model_id="m", path=large, devices=[OLD], options={"context": context + 256}
    )

    assert 0 < context < 131072
    assert context % 256 == 0
    assert harness.estimate(facts, found) <= 8192 < harness.estimate(facts, longer)


def test_a_quantised_cache_is_longer(large: Path) -> None:
    """For the same memory."""
    _, plain = spec(large, (OLD,))
    _, quantised = spec(large, (OLD,), cache_mode="Q4")

    assert quantised.options["context"] > 2 * plain.options["context"]


def test_a_context_that_was_asked_for_is_kept(large: Path) -> None:
    """Whether it fits is for the ledger to say."""
    _, found = spec(large, (OLD,), context=100_000)

    assert found.options["context"] == 100_000
    assert found.options["cache_tokens"] == 100_096


def test_memory_is_told_by_device(large: Path) -> None:
    """One number each; together they are the estimate."""
    facts, found = spec(large, (CARD, OLD), context=4096)
    harness = ExLlamaV2Harness(ExllamaSettings(), environment={})
    plan = ExllamaOptions.model_validate(dict(found.options)).plan(large, 4096, 4096)
    by_device = harness.memory(facts, plan, (CARD, OLD))

    assert len(by_device) == 2
    assert sum(by_device) == harness.estimate(facts, found)


def test_there_must_be_a_gpu(tmp_path: Path) -> None:
    """The library has no other way."""
    with pytest.raises(InvalidRequest) as caught:
        spec(write_model(tmp_path / "m", Model()), (CPU,))

    assert caught.value.code == "no_cuda_device"


def test_there_are_no_embeddings(tmp_path: Path) -> None:
    """Known when a model is asked for, not when it is used."""
    harness = ExLlamaV2Harness(ExllamaSettings(), environment={})
    folder = write_model(tmp_path / "m", Model())

    with pytest.raises(InvalidRequest) as caught:
        harness.configure(
            harness.probe(folder),
            model_id="m",
            path=folder,
            devices=[CARD],
            capabilities=["embedding"],
        )
    assert caught.value.code == "wrong_modality"


async def test_nothing_is_started_where_the_library_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is the operator's to read; no process was tried."""
    harness = ExLlamaV2Harness(ExllamaSettings(), environment={})
    monkeypatch.setattr(
        "cortex_neuron.exllama.harness.missing", lambda *_: "not installed: exllamav2"
    )
    _, wanted = spec(write_model(tmp_path / "m", Model()))

    with pytest.raises(EngineStartFailed, match="not installed"):
        await harness.start(wanted, lambda _done, _of: None)


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("preflight unsupported_arch: it scales: much", PreflightFailed, "unsupported_arch"),
        ("RuntimeError: Insufficient VRAM for model and cache", EngineFailed, "out_of_memory"),
        ("OutOfMemoryError: CUDA out of memory", EngineFailed, "out_of_memory"),
        ("RuntimeError: shapes", EngineFailed, "crashed"),
    ],
)
def test_a_failed_start_is_told_apart(said: str, kind: type[Exception], code: str) -> None:
    """Files, memory, and everything else; what the engine said is not for clients."""
    found = explain(EngineFailed("the engine cannot load this model", said=said, tail=()))

    assert type(found) is kind
    assert (found.fault.value if isinstance(found, EngineFailed) else found.code) == code
    assert "shapes" not in found.message


@pytest.mark.parametrize(
    ("config", "harness"),
    [
        ('{"quantization_config": {"quant_method": "exl2"}}', "exllamav2"),
        ('{"quantization_config": {"quant_method": "gptq"}}', "exllamav2"),
        ('{"quantization_config": {"quant_method": "exl3"}}', "exllamav3"),
        ("{}", "exllamav2"),
    ],
)
def test_the_files_say_which_harness_they_need(tmp_path: Path, config: str, harness: str) -> None:
    """A folder by how its weights are stored; a file is a GGUF."""
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "m.gguf").write_bytes(b"")

    assert harness_of(tmp_path) == harness
    assert harness_of(tmp_path / "m.gguf") == "llamacpp"


def test_a_harness_that_cannot_be_used_says_why() -> None:
    """That is another answer than one that there is not."""
    found = Harnesses({}, {"exllamav2": "no extension"})

    with pytest.raises(InvalidRequest, match="no extension") as unusable:
        found.named("exllamav2")
    with pytest.raises(InvalidRequest) as unknown:
        found.named("exllamav9")
    assert unusable.value.code == "harness_unavailable"
    assert unknown.value.code == "unknown_harness"


def test_harnesses_are_those_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Usable or not, each is in one of the two lists."""
    monkeypatch.setattr("cortex_neuron.exllama.harness.missing", lambda *_: "not here")
    found = make_harnesses(NeuronSettings(harnesses=("llamacpp", "exllamav2")))

    assert set(found.usable) | set(found.unusable) == {"llamacpp", "exllamav2"}
    assert found.unusable["exllamav2"] == "not here"
