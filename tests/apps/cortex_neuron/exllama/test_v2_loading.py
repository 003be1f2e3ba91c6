"""How exllamav2's adapter loads what was planned, run against the fakes."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from orjson import dumps

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.plan import Draft, Lora, Plan
from tests.apps.cortex_neuron.exllama.adapters import on_fakes
from tests.apps.cortex_neuron.exllama.v2_models import backend, generator, model


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fakes, where exllamav2 and torch would be."""
    with on_fakes(monkeypatch):
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder."""
    return model(tmp_path, "model")


def test_the_traps_are_kept_out_of(folder: Path) -> None:
    """No plain SDPA; one sequence a row; chunks and lengths as planned."""
    config = backend(folder)._loaded.config  # noqa: SLF001  # what the model was made with

    assert config.no_sdpa is True
    assert config.max_batch_size == 1
    assert (config.max_seq_len, config.max_input_len) == (512, 256)
    assert config.max_attention_size == 256**2


@pytest.mark.parametrize(
    ("capability", "flash", "paged"), [(8, True, True), (7, True, False), (8, False, False)]
)
def test_pages_need_cards_and_flash_attention(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capability: int,
    flash: bool,
    paged: bool,
) -> None:
    """Without, one job runs at a time, in one page."""
    torch = importlib.import_module("torch")
    attn = importlib.import_module("exllamav2.attn")
    monkeypatch.setattr(attn, "has_flash_attn_with_paged", flash)
    card = type("Card", (), {"major": capability})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: card)
    made = backend(folder)

    assert generator().paged is paged
    assert made.limits.slots == (2 if paged else 1)
    assert made.limits.page == (256 if paged else 1024)
    assert made._loaded.config.no_flash_attn is not paged  # noqa: SLF001  # what it was made with


@pytest.mark.parametrize(
    ("more", "how", "split"),
    [
        ({}, "anywhere", None),
        ({"reserve_mb": (512,)}, "anywhere", [512 << 20]),
        ({"split_mb": (2048,)}, "by hand", [2.0]),
        ({"split_mb": (3072,), "tensor_parallel": True}, "in pieces", [3.0]),
        ({"tensor_parallel": True, "reserve_mb": (1024,)}, "in pieces", [7.0]),
    ],
)
def test_a_model_is_split_as_planned(
    folder: Path, more: dict[str, Any], how: str, split: Any
) -> None:
    """Tensors are never split without saying how: the library would ask a program."""
    loaded = backend(folder, **more)._loaded  # noqa: SLF001  # how it was loaded

    assert (loaded.model.loaded, loaded.model.split) == (how, split)


@pytest.mark.parametrize("mode", ["FP16", "Q8", "Q6", "Q4"])
def test_a_cache_is_kept_as_planned(folder: Path, mode: str) -> None:
    """In 16 bits or in fewer."""
    cache = backend(folder, cache_mode=mode)._loaded.cache  # noqa: SLF001  # what was made
    name = type(cache).__name__

    assert name == "ExLlamaV2Cache" + ("" if mode == "FP16" else f"_{mode}")
    assert cache.max_seq_len == 1024


def test_positions_are_told_as_the_model_was_made(tmp_path: Path) -> None:
    """By the newer kind of config.json, and as an operator stretches them."""
    folder = model(tmp_path, "newer")
    newer = {"rope_type": "default", "rope_theta": 5e5}
    (folder / "config.json").write_bytes(dumps({"rope_parameters": newer}))
    config = backend(folder, rope_scale=2.0, rope_alpha=1.5)._loaded.config  # noqa: SLF001

    assert config.rotary_embedding_base == 5e5
    assert (config.scale_pos_emb, config.scale_alpha_value) == (2.0, 1.5)


def test_positions_that_are_not_read_are_refused(tmp_path: Path) -> None:
    """Scaling that the library does not see would make nonsense of long prompts."""
    folder = model(tmp_path, "yarn")
    (folder / "config.json").write_bytes(dumps({"rope_parameters": {"rope_type": "yarn"}}))

    with pytest.raises(PreflightFailed):
        backend(folder)


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        (lambda parent: {"loras": (Lora(path=str(parent)),)}, "LoRA"),
        (lambda parent: {"draft": Draft(path=str(model(parent, "other")))}, "vocabulary"),
    ],
)
def test_what_does_not_belong_to_the_model_is_refused(
    folder: Path,
    tmp_path: Path,
    plan: Callable[[Path], dict[str, Any]],
    what: str,
) -> None:
    """An adapter without weights, a draft of other words."""
    with pytest.raises(PreflightFailed, match=what):
        backend(folder, guesses=2, **plan(tmp_path))


def test_a_load_is_told_of_all_its_models(folder: Path, tmp_path: Path) -> None:
    """The draft's modules and the model's are one count."""
    made = importlib.import_module("cortex_neuron.exllama.v2.backend")
    told: list[tuple[int, int]] = []
    plan = Plan(
        path=str(folder),
        context=512,
        cache=512,
        chunk=256,
        guesses=2,
        draft=Draft(path=str(model(tmp_path, "small"))),
    )
    made.ExLlamaV2Backend(plan, lambda done, total: told.append((done, total)))

    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    assert told == sorted(told)
