"""Memory by formula: figures that are known, and what must hold for any model and plan.

That the formulas are exllamav2's own is shown in tests/exllamav2, with its real classes.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.cache_modes import CACHE_MODES, cache_bytes, staging_bytes
from cortex_neuron.exllama.layout import Layout, lay_out
from cortex_neuron.exllama.memory import (
    CONTEXT_MIB,
    DeviceMemory,
    estimate,
    fits,
    longest_cache,
)
from cortex_neuron.exllama.plan import PAGE, Draft, Plan
from cortex_neuron.exllama.preflight import probe
from cortex_neuron.exllama.safetensors_headers import Tensor
from cortex_neuron.exllama.shape import read_quantisation, read_shape
from cortex_neuron.exllama.tensor_parallel import deal
from tests.apps.cortex_neuron.exllama.model_folders import BYTES, Model, write_model

GIB, MIB = 1 << 30, 1 << 20
LLAMA_8B = Model(
    layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=14336,
    vocabulary=128256, context=131072, stored="exl2",
)  # fmt: skip
LLAMA_70B = replace(LLAMA_8B, layers=80, hidden=8192, heads=64, intermediate=28672)
SMALL = Model(stored="exl2", layers=8, hidden=512, heads=16, intermediate=1024, vocabulary=8000)


def laid_out(model: Model) -> Layout:
    """Return the layout of a model without writing it."""
    tensors, at = {}, 0
    for name, (dtype, shape) in model.tensors.items():
        size = BYTES[dtype]
        for one in shape:
            size *= one
        tensors[name] = Tensor(dtype, shape, at, at + size)
        at += size
    return lay_out(read_shape(model.config), tensors, read_quantisation(model.config))


def plan(context: int, mode: str = "FP16", cache: int | None = None) -> Plan:
    """Return a plan for one request of the whole cache."""
    return Plan(path="model", context=context, cache=cache or context, cache_mode=mode)


@pytest.mark.parametrize(
    ("model", "layers", "expected"),
    [
        ("Llama-3.1-8B", 32, (4.0, 2.25, 1.75, 1.25)),
        ("Llama-3.3-70B", 80, (10.0, 5.44, 4.19, 2.94)),
    ],
)
def test_known_caches_of_32k_tokens(model: str, layers: int, expected: tuple[float, ...]) -> None:
    """With the buffer into which a quantised cache is unpacked, in GiB."""
    gib = [
        (cache_bytes(mode, 32768, 8, 128) * layers + staging_bytes(mode, 32768, 8, 128)) / GIB
        for mode in CACHE_MODES
    ]

    assert [round(one, 2) for one in gib] == list(expected), model


@pytest.mark.parametrize(
    ("model", "numbers", "host_gib"), [(LLAMA_8B, 7.505e9, 0.98), (LLAMA_70B, 69.50e9, 1.96)]
)
def test_known_models(tmp_path: Path, model: Model, numbers: float, host_gib: float) -> None:
    """From headers on the disk: 4 bits a weight, and 4 more for 32 of them; on one card."""
    facts = probe(write_model(tmp_path / "model", model, shards=3))
    memory = {mode: estimate(facts.layout, plan(32768, mode), [80_000])[0] for mode in CACHE_MODES}
    scratch = memory["FP16"].scratch

    assert facts.layout.weight_bytes == pytest.approx(numbers * 4.125 / 8, rel=0.01)
    assert facts.layout.host_bytes / GIB == pytest.approx(host_gib, rel=0.01)
    assert {one.weights for one in memory.values()} == {facts.layout.weight_bytes}
    # The head is the largest matrix that is unpacked, but no more than 512 Mi numbers are at once.
    tables = 32768 * 128 * 4
    assert GIB - 30 * MIB < scratch - tables <= GIB
    assert memory["Q4"].scratch == scratch + 32768 * 8 * 128 * 4
    assert memory["FP16"].cache == 32768 * facts.layout.shape.kv_elements_per_token * 2
    assert [one.mib for one in memory.values()] == sorted(
        (one.mib for one in memory.values()), reverse=True
    )


def test_plain_weights_have_no_scratch_space_and_more_to_work_with() -> None:
    """Nothing is unpacked; the MLP keeps its inner states instead."""
    plain, packed = (laid_out(replace(SMALL, stored=how)) for how in ("fp16", "exl2"))
    one, two = (estimate(layout, plan(4096), [8000])[0] for layout in (plain, packed))

    assert one.scratch == 4096 * 32 * 4
    assert one.weights > 3 * two.weights
    assert one.working > two.working


def test_without_flash_attention_the_scores_take_room() -> None:
    """They are written down, for every head, and keys are repeated for each group."""
    layout = laid_out(SMALL)
    flash, plain = (
        estimate(layout, plan(4096), [8000], paged=paged)[0].working for paged in (True, False)
    )

    assert plain - flash >= 2 * 2048**2 * 16 * 2


def test_devices_are_filled_one_after_the_other() -> None:
    """Nothing is lost or counted twice, and the last takes what fits nowhere."""
    layout, wanted = laid_out(LLAMA_8B), plan(32768)
    whole = estimate(layout, wanted, [80_000])[0]
    apart = estimate(layout, wanted, [6000, 24_000])
    crowded = estimate(layout, wanted, [3000, 3000])

    assert sum(one.weights for one in apart) == whole.weights
    assert sum(one.cache for one in apart) == whole.cache
    assert apart[0].mib <= 6000
    assert apart[0].cache > 0 < apart[1].cache
    assert fits(apart, [6000, 24_000])
    assert not fits(crowded, [3000, 3000])
    assert crowded[1].mib > 3000


def test_what_autosplit_must_leave_moves_modules_on() -> None:
    """More in reserve on the first device, less on it."""
    layout = laid_out(LLAMA_8B)
    little, much = (
        estimate(layout, replace(plan(8192), reserve_mb=reserve), [6000, 24_000])[0].weights
        for reserve in ((0,), (2000,))
    )

    assert much < little


def test_autosplit_must_have_more_than_it_takes() -> None:
    """It gives up on a device that has not so much free besides; a split by hand does not care."""
    layout = laid_out(SMALL)
    plans = (
        plan(4096),
        replace(plan(4096), reserve_mb=(100,)),
        replace(plan(4096), split_mb=(4000,)),
    )
    found = [estimate(layout, one, [8000])[0] for one in plans]

    assert [one.loading // MIB for one in found] == [192 + 256, 100 + 256, 0]
    assert len({one.resident for one in found}) == 1
    assert found[0].mib - found[2].mib == 192 + 256


def test_a_split_by_hand_is_kept_to() -> None:
    """It speaks of weights and buffers: the cache comes on top."""
    layout = laid_out(LLAMA_8B)
    hand = replace(plan(8192), split_mb=(4500, 24_000))
    first, second = estimate(layout, hand, [80_000, 80_000])

    assert first.weights < 4500 * MIB < first.resident + 1500 * MIB
    assert second.weights == layout.weight_bytes - first.weights


def test_a_draft_model_comes_on_top() -> None:
    """On the first device, in its own cache mode; the process has one CUDA context all the same."""
    layout, small = laid_out(LLAMA_8B), laid_out(SMALL)
    alone = plan(8192)
    drafting = replace(alone, draft=Draft(path="draft", cache_mode="Q4"), guesses=4)
    one, two = (estimate(layout, a_plan, [80_000], draft=small)[0] for a_plan in (alone, drafting))
    own = estimate(small, plan(8192, "Q4"), [80_000])[0]

    assert two.resident == one.resident + own.resident
    assert two.context == CONTEXT_MIB * MIB


def test_tensor_parallel_shares_everything() -> None:
    """Two like devices hold alike; each has every fixed buffer, so that the sum is larger."""
    layout = laid_out(LLAMA_8B)
    together = replace(plan(32768, "Q4"), tensor_parallel=True)
    whole = estimate(layout, replace(together, tensor_parallel=False), [80_000])[0]
    left, right = estimate(layout, together, [24_000, 24_000])

    assert layout.indivisible is None
    assert left.cache == right.cache == whole.cache / 2
    assert left.weights == pytest.approx(whole.weights / 2, rel=0.02)
    assert left.weights + right.weights > whole.weights


@pytest.mark.parametrize(
    "model",
    [
        Model(stored="fp16"),
        Model(stored="gptq"),
        Model(stored="exl2", intermediate=192),
        Model(stored="exl2", architecture="MixtralForCausalLM", experts=2),
        Model(stored="exl2", head_dim=64),
        Model(stored="exl2", architecture="Gemma2ForCausalLM", own_head=False),
    ],
)
def test_what_cannot_be_split_inside_its_layers(model: Model) -> None:
    """Only EXL2 of a plain shape can; whoever asks for it anyway is told why not."""
    layout = laid_out(model)
    together = replace(plan(PAGE), tensor_parallel=True)
    assert layout.indivisible is not None
    with pytest.raises(PreflightFailed, match=re.escape(layout.indivisible)):
        estimate(layout, together, [8000, 8000])


@given(
    mode=st.sampled_from(CACHE_MODES),
    pages=st.integers(1, 256),
    rooms=st.lists(st.integers(700, 3000), min_size=1, max_size=3),
    paged=st.booleans(),
)
def test_more_tokens_never_need_less(
    mode: str, pages: int, rooms: list[int], *, paged: bool
) -> None:
    """In every mode and on any devices: what is held in all grows with the cache."""
    few, more = (
        estimate(LAYOUT, plan(n * PAGE, mode), rooms, paged=paged) for n in (pages, pages + 1)
    )

    assert sum(one.resident for one in few) < sum(one.resident for one in more)


@given(
    mode=st.sampled_from(CACHE_MODES),
    rooms=st.lists(st.integers(100, 2500), min_size=1, max_size=2),
    tensor_parallel=st.booleans(),
)
def test_the_longest_cache_fits_and_one_page_more_does_not(
    mode: str, rooms: list[int], *, tensor_parallel: bool
) -> None:
    """The inverse of the estimate, bounded by the model's own context."""
    asked = replace(plan(PAGE, mode), tensor_parallel=tensor_parallel)
    tokens = longest_cache(LAYOUT, asked, rooms)

    def held(tokens: int) -> tuple[DeviceMemory, ...]:
        chunk = min(asked.chunk, tokens)
        wanted = replace(asked, context=tokens, cache=tokens, chunk=chunk)
        return estimate(LAYOUT, wanted, rooms)

    assert tokens % PAGE == 0
    assert tokens <= LAYOUT.shape.context_length
    if tokens:
        assert fits(held(tokens), rooms)
    if tokens < LAYOUT.shape.context_length:
        assert not fits(held(tokens + PAGE), rooms)


def test_a_cache_for_several_requests_may_be_longer_than_one_context() -> None:
    """As long as is asked for at most; one request still has the model's own length."""
    layout = laid_out(replace(SMALL, context=4096))

    assert longest_cache(layout, plan(PAGE), [8000]) == 4096
    assert longest_cache(layout, plan(PAGE), [8000], at_most=16384) == 16384


@given(
    count=st.integers(0, 5000),
    rooms=st.lists(st.floats(0, 1e5), min_size=1, max_size=8),
    least=st.integers(0, 20),
)
def test_dealing_loses_nothing(count: int, rooms: list[float], least: int) -> None:
    """Whatever the rooms are, the parts add up."""
    assert sum(deal(count, rooms, least)) == count


LAYOUT = laid_out(replace(SMALL, context=65536))
