"""Where a model would fit: on two cards, and on a CPU."""

from dataclasses import replace
from pathlib import Path

import pytest

from cortex_core.wire import Device, DeviceHealth
from cortex_neuron.exllama.preflight import ExllamaFacts, probe
from cortex_neuron.fitting import needs, places
from cortex_neuron.harness import ModelFacts
from tests.apps.cortex_neuron.exllama.model_folders import Model, write_model

LLAMA_8B = Model(
    layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=14336,
    vocabulary=128256, context=131072, stored="exl2",
)  # fmt: skip
GGUF = ModelFacts(
    architecture="llama",
    file_bytes=4 << 30,
    context_length=8192,
    vocabulary=32000,
    embedding_length=4096,
    kv_elements_per_token=65536,
    capabilities=("completion",),
)
CARDS = [
    Device(index=index, kind="cuda", name="card", vram_total_mb=total)
    for index, total in enumerate((12_288, 24_576))
]
CPU = Device(index=0, kind="cpu", name="cpu", vram_total_mb=16_000)


def used(*free: int) -> list[DeviceHealth]:
    """Return devices that have so much free."""
    return [DeviceHealth(index=index, vram_free_mb=mb) for index, mb in enumerate(free)]


@pytest.fixture(name="facts", scope="module")
def _facts(tmp_path_factory: pytest.TempPathFactory) -> ExllamaFacts:
    return probe(write_model(tmp_path_factory.mktemp("models") / "llama", LLAMA_8B))


def test_every_cache_mode_says_what_it_needs(facts: ExllamaFacts) -> None:
    """In parts that add up, the smaller the cache the less."""
    found = needs(facts, 32768)

    assert [one.cache_mode for one in found] == ["FP16", "Q8", "Q6", "Q4"]
    assert [one.parts_mb["cache"] for one in found] == [4096, 2176, 1664, 1152]
    for one in found:
        assert 0 <= sum(one.parts_mb.values()) - one.needed_mb < len(one.parts_mb)


def test_places_are_each_card_and_all_together(facts: ExllamaFacts) -> None:
    """By layers and by tensors; a small free card takes a shorter context, or a smaller cache."""
    found = places(facts, 65536, CARDS, used(11_000, 24_000))
    fits = {(one.devices, one.split): {fit.cache_mode: fit for fit in one.fits} for one in found}

    assert list(fits) == [((0,), "whole"), ((1,), "whole"), ((0, 1), "layers"), ((0, 1), "tensors")]
    small = fits[(0,), "whole"]
    assert not small["FP16"].fits_now
    assert small["Q4"].fits_now
    assert 0 < small["FP16"].longest < small["Q4"].longest
    assert all(fit.longest == 131072 for fit in fits[(0, 1), "layers"].values())
    for place in fits.values():
        for fit in place.values():
            assert fit.fits_now == (fit.longest >= 65536)


def test_what_others_hold_counts_now_and_not_for_an_empty_card(facts: ExllamaFacts) -> None:
    """Busy cards would do once they are free."""
    (place,) = places(facts, 4096, CARDS[:1], used(3000))
    by_mode = {fit.cache_mode: fit for fit in place.fits}

    assert not by_mode["Q4"].fits_now
    assert by_mode["Q4"].fits_empty
    assert by_mode["Q4"].longest == 0
    assert place.free_mb == (3000,)


def test_exllamav2_has_no_place_on_a_cpu(facts: ExllamaFacts) -> None:
    """GGUF has."""
    assert places(facts, 4096, [CPU], used(8000)) == ()
    assert [one.split for one in places(GGUF, 4096, [CPU], used(8000))] == ["whole"]


def test_a_gguf_is_reckoned_as_its_harness_does() -> None:
    """Its own cache modes; on several cards each has an even share; its context is the limit."""
    whole, both = (
        places(GGUF, 4096, CARDS[1:], used(0, 24_000))[0],
        places(GGUF, 4096, CARDS, used(12_000, 24_000))[2],
    )

    assert [fit.cache_mode for fit in whole.fits] == ["f16", "q8_0", "q4_0"]
    assert [one.needed_mb for one in needs(GGUF, 4096)] == [fit.needed_mb[0] for fit in whole.fits]
    assert whole.fits[0].longest == 8192
    assert both.fits[0].needed_mb[0] == both.fits[0].needed_mb[1] < whole.fits[0].needed_mb[0]
    tight = places(GGUF, 4096, CARDS[:1], used(4900))[0].fits[0]
    assert not tight.fits_now
    assert tight.longest < 4096


def test_what_is_free_is_unknown_where_nobody_says(facts: ExllamaFacts) -> None:
    """Then all of it counts."""
    (place,) = places(facts, 4096, CARDS[:1], [])

    assert place.free_mb == (12_288,)


def test_one_device_more_is_never_worse(tmp_path: Path) -> None:
    """A model too large for one card, spread by layers."""
    large = replace(LLAMA_8B, layers=80, hidden=8192, heads=64, intermediate=28672)
    facts = probe(write_model(tmp_path / "large", large))
    one = Device(index=0, kind="cuda", name="card", vram_total_mb=24_576)
    cards = [one.model_copy(update={"index": index}) for index in range(2)]
    found = places(facts, 8192, cards, used(24_000, 24_000))

    assert [any(fit.fits_now for fit in place.fits) for place in found[:2]] == [False, False]
    assert all(fit.fits_now for place in found[2:] for fit in place.fits if fit.cache_mode == "Q4")
