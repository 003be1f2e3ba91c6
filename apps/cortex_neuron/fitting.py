"""How much memory a model would need here, and on which devices it would fit. Pure.

A place is one device, all of them with whole layers on each, or all of them with a part of every
layer on each (tensor parallel).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cortex_core.settings import LlamaCppSettings
from cortex_core.wire import Device, DeviceHealth
from cortex_neuron.exllama.cache_modes import CACHE_MODES
from cortex_neuron.exllama.harness import can_page
from cortex_neuron.exllama.memory import DeviceMemory, estimate, fits, longest_cache
from cortex_neuron.exllama.plan import PAGE, Plan, whole_pages
from cortex_neuron.exllama.preflight import ExllamaFacts
from cortex_neuron.harness import ModelFacts
from cortex_neuron.llamacpp.harness import LlamaCppHarness

_GGUF_MODES: Final = ("f16", "q8_0", "q4_0")
_CHUNK: Final = 2048
_UNBOUNDED_MB: Final = 1 << 24
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What one cache mode needs on one device, in MiB; parts where they are known."""

    cache_mode: str
    needed_mb: int
    parts_mb: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """One cache mode on one place. `longest` is the context that fits what is free, 0 for none."""

    cache_mode: str
    needed_mb: tuple[int, ...]
    fits_now: bool
    fits_empty: bool
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Devices that could hold the model together; `split` is `whole`, `layers` or `tensors`."""

    devices: tuple[int, ...]
    split: str
    free_mb: tuple[int, ...]
    fits: tuple[Fit, ...]


def needs(facts: ModelFacts, context: int) -> tuple[Need, ...]:
    """Return what every cache mode needs for `context` tokens on one large enough device."""
    if isinstance(facts, ExllamaFacts):
        return tuple(_need(facts, mode, context) for mode in CACHE_MODES)
    gpu = Device(index=0, kind="cuda", name="", vram_total_mb=_UNBOUNDED_MB)
    return tuple(
        Need(cache_mode=mode, needed_mb=_gguf_mb(facts, mode, context, [gpu]), parts_mb={})
        for mode in _GGUF_MODES
    )


def places(
    facts: ModelFacts, context: int, devices: Sequence[Device], now: Sequence[DeviceHealth]
) -> tuple[Place, ...]:
    """Return every place on `devices`, with how each cache mode fits there."""
    free = {one.index: one.vram_free_mb for one in now}
    exllama = isinstance(facts, ExllamaFacts)
    known = [
        one
        for one in devices
        if one.vram_total_mb is not None and (one.kind == "cuda" or not exllama)
    ]
    groups: list[tuple[Sequence[Device], str]] = [([one], "whole") for one in known]
    if len(known) > 1:
        groups.append((known, "layers"))
        if isinstance(facts, ExllamaFacts) and facts.layout.indivisible is None:
            groups.append((known, "tensors"))
    return tuple(
        Place(
            devices=tuple(one.index for one in group),
            split=split,
            free_mb=tuple(_free(one, free) for one in group),
            fits=_fits(facts, context, group, split, [_free(one, free) for one in group]),
        )
        for group, split in groups
    )


def _free(device: Device, free: Mapping[int, int | None]) -> int:
    found = free.get(device.index)
    return (device.vram_total_mb or 0) if found is None else found


def _fits(
    facts: ModelFacts, context: int, group: Sequence[Device], split: str, free: Sequence[int]
) -> tuple[Fit, ...]:
    if isinstance(facts, ExllamaFacts):
        total = [one.vram_total_mb or 0 for one in group]
        together = split == "tensors"
        return tuple(
            _fit_exllama(
                facts,
                _plan(mode, context, tensor_parallel=together),
                free,
                total,
                paged=can_page(group),
            )
            for mode in CACHE_MODES
        )
    return tuple(_fit_gguf(facts, context, group, free, mode) for mode in _GGUF_MODES)


def _fit_exllama(
    facts: ExllamaFacts, plan: Plan, free: Sequence[int], total: Sequence[int], *, paged: bool
) -> Fit:
    now, empty = (estimate(facts.layout, plan, rooms, paged=paged) for rooms in (free, total))
    return Fit(
        cache_mode=plan.cache_mode,
        needed_mb=tuple(one.mib for one in now),
        fits_now=fits(now, free),
        fits_empty=fits(empty, total),
        longest=longest_cache(facts.layout, plan, free, paged=paged),
    )


def _fit_gguf(
    facts: ModelFacts, context: int, group: Sequence[Device], free: Sequence[int], mode: str
) -> Fit:
    count = len(group)

    def share(tokens: int) -> int:
        return -(-_gguf_mb(facts, mode, tokens, group) // count)

    needed = share(context)
    return Fit(
        cache_mode=mode,
        needed_mb=(needed,) * count,
        fits_now=needed <= min(free),
        fits_empty=needed <= min(one.vram_total_mb or 0 for one in group),
        longest=_longest(facts.context_length or context, lambda n: share(n) <= min(free)),
    )


def _need(facts: ExllamaFacts, mode: str, context: int) -> Need:
    (memory,) = estimate(facts.layout, _plan(mode, context), [_UNBOUNDED_MB])
    return Need(cache_mode=mode, needed_mb=memory.mib, parts_mb=_parts(memory))


def _parts(memory: DeviceMemory) -> Mapping[str, int]:
    parts = {
        "weights": memory.weights,
        "cache": memory.cache,
        "scratch": memory.scratch,
        "working": memory.working,
        "loading": memory.loading,
        "context": memory.context,
    }
    return {name: -(-size // _MIB) for name, size in parts.items()}


def _plan(mode: str, context: int, *, tensor_parallel: bool = False) -> Plan:
    tokens = whole_pages(context)
    return Plan(
        path="",
        context=context,
        cache=tokens,
        cache_mode=mode,
        chunk=min(_CHUNK, max(PAGE, context // PAGE * PAGE)),
        tensor_parallel=tensor_parallel,
    )


def _gguf_mb(facts: ModelFacts, mode: str, context: int, devices: Sequence[Device]) -> int:
    harness = LlamaCppHarness(LlamaCppSettings(parallel=1), {})
    spec = harness.configure(
        facts,
        model_id="model",
        path=Path(),
        devices=devices,
        options={"context": context, "cache_type_k": mode, "cache_type_v": mode},
    )
    return harness.estimate(facts, spec)


def _longest(own: int, fits: Callable[[int], bool]) -> int:
    """Return the largest context that fits, in steps of 256 tokens; 0 when none does."""
    low, high = 0, max(own, PAGE) // PAGE
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * PAGE) else (low, middle - 1)
    return min(low * PAGE, own)
