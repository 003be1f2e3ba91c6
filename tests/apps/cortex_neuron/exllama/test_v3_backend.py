"""The adapter for exllamav3, run against fakes; what it shares is tested with exllamav2's."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.jobs import Broke, Ended, EndReason, Started
from cortex_neuron.exllama.plan import Draft, Lora, Plan
from cortex_neuron.exllama.sampling import Sampling
from tests.apps.cortex_neuron.exllama.adapters import Only, finish, job, on_fakes, tokens


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The fakes, where exllamav3 and torch would be."""
    with on_fakes(monkeypatch):
        yield


def backend(folder: str = "/models/m", **more: Any) -> Any:
    """Return the adapter with a model of a small plan."""
    made = importlib.import_module("cortex_neuron.exllama.v3.backend")
    small = {"context": 512, "cache": 1024, "chunk": 256, "slots": 2}
    return made.ExLlamaV3Backend(Plan(path=folder, **{**small, **more}), lambda _d, _t: None)


def generator() -> Any:
    """Return the newest generator."""
    return sys.modules["exllamav3"].Generator.made[-1]


def steps(**sampling: Any) -> list[tuple[str, dict[str, Any]]]:
    """Return the chain of a sampling: each step's name, and what it was made with."""
    made = backend()
    made.submit(1, job(sampling=Sampling(**sampling)))
    return [(type(one).__name__, vars(one)) for one in generator().jobs[0].sampler.steps]


def test_a_job_is_told_from_its_beginning_to_its_end() -> None:
    """What was known of its prompt, its tokens, and why it ended: as many as were asked for."""
    plain, stopped = finish(
        backend(guesses=3), job(5, max_tokens=3), job(5, max_tokens=9, stop_tokens=frozenset({8}))
    )

    assert plain[0] == Started(259)
    assert (tokens(plain), plain[-1]) == ([6, 7, 8], Ended(EndReason.MAX_TOKENS, 3))
    assert (tokens(stopped), stopped[-1]) == ([6, 7], Ended(EndReason.STOP_TOKEN, 3))


def test_limits_leave_room_for_what_is_not_told() -> None:
    """It writes a token further than it tells, and what it guesses; some samplings it lacks."""
    limits = backend(guesses=3).limits

    assert (limits.cache, limits.context, limits.slots, limits.page) == (1020, 512, 2, 256)
    assert "mirostat" in limits.lacks


def test_a_plain_chain_cuts_nothing() -> None:
    """A sampling that was not asked for is as if it were not there."""
    assert steps() == [
        ("SS_RepP", {"rep_p": 1.0, "sustain_range": 1 << 30}),
        ("SS_PresFreqP", {"pres_p": 0.0, "freq_p": 0.0}),
        ("SS_Temperature", {"temperature": 1.0}),
        ("SS_TopK", {"top_k": 0}),
        ("SS_TopP", {"top_p": 1.0}),
        ("SS_MinP", {"min_p": 0.0}),
        ("SS_Sample", {}),
    ]


def test_a_greedy_chain_takes_the_likeliest() -> None:
    """After penalties, and whatever else was said."""
    assert [name for name, _ in steps(temperature=0, top_p=0.5)][2:] == ["SS_Argmax"]


def test_everything_that_is_asked_for_is_in_the_chain() -> None:
    """In its place: penalties first, heat last where it shall be."""
    chain = steps(
        temperature=0.7,
        temperature_last=True,
        repetition_penalty=1.2,
        repetition_range=64,
        dry_multiplier=0.8,
        dry_sequence_breakers=("w63",),
        xtc_probability=0.4,
        logit_bias={5: -1.0},
    )
    said = dict(chain)

    assert [name for name, _ in chain] == [
        *("SS_RepP", "SS_PresFreqP", "SS_DRY", "SS_LogitBias", "SS_TopK", "SS_TopP", "SS_MinP"),
        *("SS_XTC", "SS_Temperature", "SS_Sample"),
    ]
    assert said["SS_RepP"] == {"rep_p": 1.2, "sustain_range": 64}
    assert said["SS_DRY"]["dry_sequence_breakers"] == {63}
    assert said["SS_LogitBias"] == {"logit_bias": {5: -1.0}}


def test_a_grammar_is_kept_to() -> None:
    """Also where it allows nothing: then the end comes."""
    mask = Only(33)
    kept, ended = finish(
        backend(), job(max_tokens=3, mask=mask), job(mask=Only(None), stop_tokens=frozenset({9}))
    )

    assert tokens(kept) == mask.accepted == [33, 33, 33]
    assert ended[-1] == Ended(EndReason.STOP_TOKEN, 1)


def test_a_grammar_that_fails_takes_nobody_along() -> None:
    """Its own answer breaks."""
    broken, other = finish(backend(), job(mask=Only(3, KeyError("x"))), job(max_tokens=3))

    assert isinstance(broken[-1], Broke)
    assert other[-1] == Ended(EndReason.MAX_TOKENS, 3)


def test_a_job_that_fails_by_itself_breaks_alone() -> None:
    """The library goes on with the others."""
    made = backend()
    generator().failures[4] = RuntimeError("nan")
    broken, other = finish(made, job(1, 2, 3), job(1))

    assert isinstance(broken[-1], Broke)
    assert len(tokens(broken)) == 1
    assert isinstance(other[-1], Ended | Broke)


@pytest.mark.parametrize("message", ["CUDA error: misaligned address", "CUDA out of memory"])
def test_a_failure_that_reaches_further_is_raised(message: str) -> None:
    """Whoever drives the backend has to know of it."""
    made = backend()
    generator().failures[2] = RuntimeError(message)

    with pytest.raises(RuntimeError, match=message):
        finish(made, job())


def test_cancelling_and_resetting_free_the_cache() -> None:
    """A new generator takes the place of the old one, which is closed."""
    made = backend()
    made.submit(1, job())
    made.submit(2, job())
    made.cancel(1)
    assert made.free_pages == 3
    old = generator()
    made.reset()

    assert old.closed
    assert generator() is not old
    assert (made.free_pages, made.busy()) == (4, False)


@pytest.mark.parametrize(
    ("more", "how"),
    [
        ({}, {"reserve_per_device": None, "use_per_device": None, "tensor_p": False}),
        ({"reserve_mb": (512, 0)}, {"reserve_per_device": [0.5, 0.0], "use_per_device": None}),
        ({"split_mb": (1024, 2048)}, {"reserve_per_device": None, "use_per_device": [1.0, 2.0]}),
        ({"tensor_parallel": True}, {"tensor_p": True, "max_chunk_size": 256}),
    ],
)
def test_a_model_is_loaded_as_planned(more: dict[str, Any], how: dict[str, Any]) -> None:
    """With its cache made before it."""
    loaded = backend(**more)._loaded.model.loaded  # noqa: SLF001  # how it was loaded

    assert loaded.items() >= how.items()


@pytest.mark.parametrize(("mode", "bits"), [("FP16", None), ("Q8", 8), ("Q6", 6), ("Q4", 4)])
def test_a_cache_is_kept_as_planned(mode: str, bits: int | None) -> None:
    """In 16 bits or in fewer."""
    cache = backend(cache_mode=mode)._loaded.cache  # noqa: SLF001  # what was made

    assert cache.max_num_tokens == 1024
    assert cache.layer_type.__name__ == ("CacheLayer_fp16" if bits is None else "CacheLayer_quant")
    assert cache.more == ({} if bits is None else {"k_bits": bits, "v_bits": bits})


@pytest.mark.parametrize(("guesses", "ngram", "drafted"), [(0, 0, None), (3, 2, 3)])
def test_guesses_come_from_the_text(guesses: int, ngram: int, drafted: int | None) -> None:
    """Without a draft model what has recurred is guessed; without guesses nothing is."""
    backend(guesses=guesses)

    assert (generator().ngram_match_min, generator().num_draft_tokens) == (ngram, drafted)
    assert generator().draft_model is None


def test_a_draft_model_guesses() -> None:
    """It has a cache of its own, and the same words."""
    made = backend(guesses=3, draft=Draft(path="/models/small"))

    assert generator().draft_model is not None
    assert (generator().ngram_match_min, generator().num_draft_tokens) == (0, 3)
    made.close()
    with pytest.raises(PreflightFailed, match="vocabulary"):
        backend(guesses=3, draft=Draft(path="/models/other"))


def test_an_adapter_is_one_of_safetensors(tmp_path: Path) -> None:
    """A pickle beside it would be opened instead."""
    with pytest.raises(PreflightFailed, match="safetensors"):
        backend(loras=(Lora(path=str(tmp_path)),))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    made = backend(loras=(Lora(path=str(tmp_path), scale=0.5),))
    (lora,) = made._loaded.loras  # noqa: SLF001  # what was laid over it
    made.close()
    (tmp_path / "adapter_model.bin").write_bytes(b"")

    assert (lora.scale, lora.unloaded) == (0.5, True)
    with pytest.raises(PreflightFailed, match="safetensors"):
        backend(loras=(Lora(path=str(tmp_path)),))
