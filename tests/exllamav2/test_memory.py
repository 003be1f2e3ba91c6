"""The estimate of memory against what exllamav2's own classes reckon with and allocate.

Quantised kernels do not run on a CPU, but what they are given is allocated all the same: here they
take it and give back a handle.
"""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cortex_neuron.exllama.memory import estimate, split_by_hand
from cortex_neuron.exllama.plan import Plan
from cortex_neuron.exllama.preflight import probe
from cortex_neuron.exllama.tensor_parallel import scratch_of_shares, shares
from tests.apps.cortex_neuron.exllama.model_folders import Model, write_model

torch = pytest.importorskip("torch")
pytest.importorskip("exllamav2_ext")
exllamav2 = pytest.importorskip("exllamav2")

from exllamav2 import device, ext, tensor_p  # noqa: E402

CONTEXT, CACHE, CHUNK = 2048, 1024, 256
CACHES = {
    "FP16": exllamav2.ExLlamaV2Cache,
    "Q8": exllamav2.ExLlamaV2Cache_Q8,
    "Q6": exllamav2.ExLlamaV2Cache_Q6,
    "Q4": exllamav2.ExLlamaV2Cache_Q4,
}
BIASED = ("_proj", "c_fc", "c_attn")
MODELS = {
    "llama": Model(vocabulary=515),
    "llama-exl2": Model(stored="exl2", layers=3),
    "llama-exl2-6bit": Model(
        stored="exl2", bits=6, vocabulary=1000, heads=8, head_dim=64, intermediate=640
    ),
    "llama-exl2-wide": Model(
        stored="exl2", hidden=1024, heads=16, head_dim=64, kv_heads=8, intermediate=2048
    ),
    "llama-gptq": Model(stored="gptq", hidden=256, heads=8),
    "qwen3-bf16-tied": Model(
        architecture="Qwen3ForCausalLM", tied=True, own_head=False, dtype="BF16", head_dim=64
    ),
    "qwen2-f32": Model(
        architecture="Qwen2ForCausalLM", biased=("q_proj", "k_proj", "v_proj"), dtype="F32"
    ),
    "mixtral-exl2": Model(architecture="MixtralForCausalLM", experts=4, stored="exl2"),
    "qwen3moe": Model(architecture="Qwen3MoeForCausalLM", experts=4),
    "gemma2": Model(architecture="Gemma2ForCausalLM", own_head=False, extra={"sliding_window": 64}),
    "cohere-exl2": Model(architecture="CohereForCausalLM", own_head=False, stored="exl2"),
    "phi3": Model(architecture="Phi3ForCausalLM"),
    "phi3-exl2": Model(architecture="Phi3ForCausalLM", stored="exl2"),
    "internlm2": Model(architecture="InternLM2ForCausalLM"),
    "glm4": Model(architecture="Glm4ForCausalLM", extra={"partial_rotary_factor": 0.5}),
    "dbrx": Model(architecture="DbrxForCausalLM", experts=4),
    "starcoder2": Model(
        architecture="Starcoder2ForCausalLM", own_head=False, norm_biased=True, biased=BIASED
    ),
    "gpt2": Model(
        architecture="GPT2LMHeadModel",
        own_head=False,
        norm_biased=True,
        biased=BIASED,
        kv_heads=4,
        intermediate=512,
        context=CONTEXT,
    ),
}


@pytest.fixture(autouse=True)
def _kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("make_q_matrix", "make_q_attn", "make_q_mlp", "make_q_moe_mlp"):
        monkeypatch.setattr(ext.exllamav2_ext, name, lambda *_: 1, raising=False)
    for name in ("free_q_matrix", "free_q_attn", "free_q_mlp", "free_q_moe_mlp"):
        monkeypatch.setattr(ext.exllamav2_ext, name, lambda *_: None, raising=False)
    for name in ("tensor_remap", "tensor_remap_4bit"):
        monkeypatch.setattr(ext.exllamav2_ext, name, lambda *_: None, raising=False)
    monkeypatch.setattr(ext.exllamav2_ext, "make_group_map", ext.make_group_map_py, raising=False)
    for index in range(4):
        monkeypatch.setitem(device.global_streams, index, object())
    gc.collect()
    gc.freeze()  # what was there before is not looked at
    yield
    gc.unfreeze()


@pytest.fixture(name="write")
def _write(tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: write_model(tmp_path / name, MODELS[name])


def configured(folder: Path) -> Any:
    """Return exllamav2's configuration of a model, as the engine sets it."""
    config = exllamav2.ExLlamaV2Config(str(folder))
    config.max_seq_len, config.max_input_len, config.max_output_len = CONTEXT, CHUNK, 16
    config.max_attention_size = CHUNK**2
    config.no_sdpa = True
    return config


def planned(folder: Path, mode: str = "FP16", **more: Any) -> Plan:
    """Return the same as a plan."""
    return Plan(
        path=str(folder), context=CONTEXT, cache=CACHE, chunk=CHUNK, cache_mode=mode, **more
    )


def tensors() -> Iterator[Any]:
    """Yield every tensor that came after the test began."""
    for one in gc.get_objects():
        if issubclass(type(one), torch.Tensor) and one.device.type != "meta":
            yield one


def allocated() -> int:
    """Return the bytes of all tensors.

    What a device would get is a copy of its part; on the CPU that is a view into the whole, so a
    storage counts for no more than what is looked at.
    """
    gc.collect()
    storages: dict[int, int] = {}
    views: dict[int, dict[int, int]] = {}
    for one in tensors():
        whole = one.untyped_storage()
        storages[whole.data_ptr()] = whole.nbytes()
        seen = views.setdefault(whole.data_ptr(), {})
        size = one.numel() * one.element_size()
        seen[one.data_ptr()] = max(size, seen.get(one.data_ptr(), 0))
    return sum(min(size, sum(views[at].values())) for at, size in storages.items())


@pytest.mark.parametrize("name", MODELS)
def test_the_estimate_is_what_is_allocated(write: Callable[[str], Path], name: str) -> None:
    """Weights, cache, scratch space and positions, in every cache mode, to the thousandth."""
    folder = write(name)
    facts = probe(folder)
    off = {}
    for mode, cache_class in CACHES.items():
        assert not allocated()
        model = exllamav2.ExLlamaV2(configured(folder))
        model.load()
        for context in filter(None, model.device_context):
            if not context.ready:
                context.prepare(scratch=False)
        cache = cache_class(model, max_seq_len=CACHE)
        held = allocated()
        model.unload()
        del model, cache, context
        estimated = estimate(facts.layout, planned(folder, mode), [8000])[0].resident
        off[mode] = (estimated + facts.layout.host_bytes - held) / held

    assert max(map(abs, off.values())) < 0.001, off


@pytest.mark.parametrize("name", MODELS)
def test_the_footprints_are_exllamav2s_own(write: Callable[[str], Path], name: str) -> None:
    """Module for module: the split by hand rests on them."""
    folder = write(name)
    model = exllamav2.ExLlamaV2(configured(folder))

    assert [one.weight_footprint() for one in model.modules] == [
        one.footprint for one in probe(folder).layout.modules
    ]


@pytest.mark.parametrize("total_mb", [8, 10, 12, 16, 24])
@pytest.mark.parametrize("flash", [True, False])
def test_a_split_by_hand_puts_modules_where_exllamav2_does(
    write: Callable[[str], Path], total_mb: int, flash: bool
) -> None:
    """What does not fit anywhere lies on the last device, where exllamav2 would refuse."""
    folder = write("llama-exl2")
    config = configured(folder)
    config.no_flash_attn = not flash
    model = exllamav2.ExLlamaV2(config)
    places = split_by_hand(
        probe(folder).layout, planned(folder), [total_mb / 3 * 2**20] * 3, paged=flash
    )
    try:
        model.set_device_map([total_mb / 3 / 1024] * 3)
    except AssertionError:
        assert places[-1] == 2
    else:
        assert list(places)[1:] == [one.device_idx for one in model.modules][1:]


@pytest.mark.parametrize("rooms", [[8000, 8000], [8000, 3000], [24000, 12000, 8000], [10, 5]])
@pytest.mark.parametrize("mode", CACHES)
def test_a_model_is_cut_as_exllamav2_cuts_it(
    write: Callable[[str], Path], rooms: list[int], mode: str
) -> None:
    """Shares of heads and rows, the scratch space on each device, and the parts of the cache."""
    folder = write("llama-exl2")
    layout, plan = probe(folder).layout, planned(folder, mode, tensor_parallel=True)
    model = exllamav2.ExLlamaV2(configured(folder))
    model.tp_context = cut = tensor_p.TPContext(
        model, [mb / 1024 for mb in rooms], CACHE, CACHES[mode]
    )
    ours = shares(layout, plan, [float(mb) for mb in rooms])
    wanted = [
        max(sizes) for sizes in zip(*(m.scratch_space_tp() for m in model.modules[1:]), strict=True)
    ]
    parts = [
        sum(
            one.numel() * one.element_size()
            for one in CACHES[mode](
                model, max_seq_len=CACHE, num_key_value_heads=b - a, fixed_device="cpu"
            ).all_tensors()
        )
        for _, a, b in cut.kv_split
    ]

    for split, share in (
        (cut.kv_split, ours.kv),
        (cut.q_split, ours.query),
        (cut.id_split, ours.inner),
        (cut.rs_split, ours.hidden),
        (cut.vc_split, ours.vocabulary),
    ):
        assert [(at, b - a) for at, a, b in split] == [
            (at, part) for at, part in enumerate(share) if part
        ]
    assert list(scratch_of_shares(layout, plan, ours))[: cut.num_devices] == wanted
    assert [one.cache for one in estimate(layout, plan, rooms) if one.cache] == parts


@pytest.mark.parametrize("rooms", [[8000, 8000], [9000, 6000, 3000]])
def test_a_model_that_is_cut_holds_what_was_estimated(
    write: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, rooms: list[int]
) -> None:
    """Weights and scratch space of all devices together.

    On the CPU the parts that every device has a copy of are there once; they are small.
    """
    monkeypatch.setattr(ext.exllamav2_ext, "make_q_matrix_split", lambda *_: 1, raising=False)
    monkeypatch.setattr(tensor_p.TPContext, "finalize", lambda _: None)  # pinned host memory
    folder = write("llama-exl2-wide")
    facts, plan = probe(folder), planned(folder, tensor_parallel=True)
    assert not allocated()
    model = exllamav2.ExLlamaV2(configured(folder))
    model.load_tp([mb / 1024 for mb in rooms], expect_cache_tokens=CACHE)
    held = allocated() - facts.layout.host_bytes
    estimated = sum(one.weights + one.scratch for one in estimate(facts.layout, plan, rooms))
    # The second copy of the tables comes with the first token.
    estimated -= len([mb for mb in rooms if mb]) * CONTEXT * facts.layout.shape.head_dim * 4

    assert abs(estimated - held) / held < 0.03
