"""How much memory a model will hold on each device, and how long a context fits. Pure.

The formulas are exllamav2's own (0.3.2): what it reckons with when it splits by hand, and what its
classes allocate. `resident` is exact; `working` is what a busy model takes on top while it reads a
chunk; `loading` is what autosplit insists on having free besides, while it tries each module out;
`context` is judged (CUDA context, cuBLAS, slack of the allocator).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.cache_modes import cache_bytes, staging_bytes
from cortex_neuron.exllama.layout import Layout, Matrix, Module
from cortex_neuron.exllama.plan import PAGE, Plan, whole_pages
from cortex_neuron.exllama.shape import Shape
from cortex_neuron.exllama.tensor_parallel import scratch_of_shares, shares

_MIB = 1 << 20

#: CUDA context, cuBLAS and what the allocator cannot hand out. Judged: 0.5 to 0.8 GiB were seen.
CONTEXT_MIB = 640

#: What autosplit keeps free while it tries a module: on the first device, on each other, on all.
_RESERVE_FIRST, _RESERVE_OTHER, _RESERVE_PROBE = 192 * _MIB, 64 * _MIB, 256 * _MIB

_MOST_UNPACKED = 512 * 1024**2
_SLOTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Bytes on one device. `scratch` is fixed buffers: of kernels, of the cache, of positions."""

    weights: int = 0
    cache: int = 0
    scratch: int = 0
    working: int = 0
    loading: int = 0
    context: int = 0

    @property
    def resident(self) -> int:
        """Bytes that are held from the end of the load on."""
        return self.weights + self.cache + self.scratch

    @property
    def mib(self) -> int:
        """MiB that must be free for it, rounded up."""
        return -(-(self.resident + self.working + self.loading + self.context) // _MIB)

    def __add__(self, other: "DeviceMemory") -> "DeviceMemory":
        """Return both models on one device: one process has one context, and one runs at a time."""
        return DeviceMemory(
            weights=self.weights + other.weights,
            cache=self.cache + other.cache,
            scratch=self.scratch + other.scratch,
            working=max(self.working, other.working),
            loading=max(self.loading, other.loading),
            context=max(self.context, other.context),
        )


def estimate(
    layout: Layout,
    plan: Plan,
    rooms_mb: Sequence[int],
    *,
    draft: Layout | None = None,
    paged: bool = True,
) -> tuple[DeviceMemory, ...]:
    """Return what `layout` loaded by `plan` holds on each of the devices.

    `rooms_mb` is what each device has free, as a guide for the split; what does not fit anywhere is
    counted on the last. A draft model lies on the first. `paged`: flash-attention can be used.
    Raises PreflightFailed `unsupported_arch` for tensor parallel where the model does not allow it.
    """
    if plan.tensor_parallel:
        if (reason := layout.indivisible) is not None:
            raise PreflightFailed(
                "unsupported_arch", f"the model cannot be loaded tensor-parallel: {reason}"
            )
        found = _divided(layout, plan, rooms_mb)
    else:
        found = _placed(
            layout, plan, _places(layout, plan, rooms_mb, paged=paged), rooms_mb, paged=paged
        )
    if draft is not None and plan.draft is not None:
        small = replace(plan, cache_mode=plan.draft.cache_mode, draft=None, split_mb=None)
        first = _placed(draft, small, [0] * len(draft.modules), rooms_mb[:1], paged=paged)[0]
        found = (found[0] + first, *found[1:])
    return found


def fits(memory: Sequence[DeviceMemory], rooms_mb: Sequence[int]) -> bool:
    """Whether every device has room for its part."""
    return all(one.mib <= room for one, room in zip(memory, rooms_mb, strict=True))


def longest_cache(
    layout: Layout,
    plan: Plan,
    rooms_mb: Sequence[int],
    *,
    draft: Layout | None = None,
    paged: bool = True,
    at_most: int | None = None,
) -> int:
    """Return the most tokens that a cache may have to fit, in whole pages; 0: it never fits.

    It is no longer than `at_most`, else than the model's own context, and the context of one
    request grows with it up to that length.
    """
    own = layout.shape.context_length
    most = whole_pages(own if at_most is None else at_most) // PAGE

    def fit(pages: int) -> bool:
        tokens = pages * PAGE
        context = min(tokens, own)
        tried = replace(plan, cache=tokens, context=context, chunk=min(plan.chunk, tokens))
        return fits(estimate(layout, tried, rooms_mb, draft=draft, paged=paged), rooms_mb)

    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fit(middle) else (low, middle - 1)
    return low * PAGE


def _places(layout: Layout, plan: Plan, rooms_mb: Sequence[int], *, paged: bool) -> Sequence[int]:
    """Return the device of each module, counted from 0."""
    if len(rooms_mb) == 1:
        return [0] * len(layout.modules)
    if plan.split_mb is not None:
        return split_by_hand(layout, plan, [mb * _MIB for mb in plan.split_mb], paged=paged)
    return _filled(layout, plan, [mb * _MIB for mb in rooms_mb], paged=paged)


def split_by_hand(
    layout: Layout, plan: Plan, allocation: Sequence[float], *, paged: bool = True
) -> Sequence[int]:
    """Return the device of each module when each takes so many bytes of weights and buffers."""
    shape = layout.shape
    constant = 4 * shape.head_dim * plan.context if shape.architecture.rotary else 0
    constant += 2 * shape.hidden * plan.chunk + 2 * plan.chunk**2
    left = [size - constant for size in allocation]
    scratch, attention = [0] * len(left), [0.0] * len(left)
    at, places = 0, list[int]()
    for module in layout.modules:
        if module.kind == "embedding":
            places.append(at)
            continue
        wide = _scratch(module, shape, plan)
        scores = _scores(shape, plan, paged=paged) if module.kind == "attention" else 0
        while at < len(left) - 1:
            needed = module.footprint + max(wide, scratch[at]) + max(scores, attention[at])
            if needed <= left[at]:
                break
            at += 1
        scratch[at], attention[at] = max(wide, scratch[at]), max(scores, attention[at])
        left[at] -= module.footprint
        places.append(at)
    return places


def _filled(layout: Layout, plan: Plan, rooms: Sequence[int], *, paged: bool) -> Sequence[int]:
    """Return the device of each module when each device is filled before the next is touched."""
    shape = layout.shape
    layer = _cache_layer(shape, plan)
    fixed = _buffers(layout, plan, layout.modules)
    working = max(_working(module, layout, plan, paged=paged) for module in layout.modules)
    reserve = [working + _reserve(plan, index) + CONTEXT_MIB * _MIB for index in range(len(rooms))]
    used, at, places = [0] * len(rooms), 0, list[int]()
    staged = [False] * len(rooms)
    for module in layout.modules:
        if module.kind == "embedding":
            places.append(at)
            continue
        while True:
            size = module.loaded + (layer if module.keeps_cache else 0)
            size += _staging(shape, plan) if module.keeps_cache and not staged[at] else 0
            size += fixed if not used[at] else 0
            if at == len(rooms) - 1 or used[at] + size + reserve[at] <= rooms[at]:
                break
            at += 1
        used[at] += size
        staged[at] |= module.keeps_cache
        places.append(at)
    return places


def _reserve(plan: Plan, index: int) -> int:
    """Return what autosplit keeps free on a device while it tries modules out there."""
    kept = _RESERVE_OTHER if index else _RESERVE_FIRST
    if plan.reserve_mb:
        kept = plan.reserve_mb[index] * _MIB if index < len(plan.reserve_mb) else 0
    return kept + _RESERVE_PROBE


def _placed(
    layout: Layout, plan: Plan, places: Sequence[int], rooms_mb: Sequence[int], *, paged: bool
) -> tuple[DeviceMemory, ...]:
    """Return the memory of modules that lie whole on their devices."""
    shape = layout.shape
    by_hand = plan.split_mb is not None

    def on(index: int) -> DeviceMemory:
        here = [
            module
            for module, place in zip(layout.modules, places, strict=True)
            if place == index and module.kind != "embedding"
        ]
        if not here:
            return DeviceMemory()
        cached = sum(module.keeps_cache for module in here)
        return DeviceMemory(
            weights=sum(module.loaded for module in here),
            cache=cached * _cache_layer(shape, plan),
            scratch=_buffers(layout, plan, here if by_hand else layout.modules)
            + (_staging(shape, plan) if cached else 0),
            working=max(_working(module, layout, plan, paged=paged) for module in here),
            loading=0 if by_hand else _reserve(plan, index),
            context=CONTEXT_MIB * _MIB,
        )

    return tuple(on(index) for index in range(len(rooms_mb)))


def _divided(layout: Layout, plan: Plan, rooms_mb: Sequence[int]) -> tuple[DeviceMemory, ...]:
    """Return the memory of modules each of which lies on all devices in part."""
    shape = layout.shape
    rooms = [float(mb) for mb in (plan.split_mb or rooms_mb)]
    cut = shares(layout, plan, rooms)
    scratch = scratch_of_shares(layout, plan, cut)

    def on(index: int) -> DeviceMemory:
        if index not in cut.devices:
            return DeviceMemory()
        weights = sum(cut.bytes_on(module, index) for module in layout.modules)
        heads = cut.kv[index]
        layer = cache_bytes(plan.cache_mode, plan.cache, heads, shape.head_dim)
        return DeviceMemory(
            weights=weights,
            cache=layer * shape.layers,
            # The tables of positions are there twice: once for the device, once for the split.
            scratch=scratch[index]
            + 2 * _tables(shape, plan)
            + staging_bytes(plan.cache_mode, plan.cache, heads, shape.head_dim),
            working=2 * 2 * plan.chunk * shape.hidden,
            context=CONTEXT_MIB * _MIB,
        )

    return tuple(on(index) for index in range(len(rooms_mb)))


def _cache_layer(shape: Shape, plan: Plan) -> int:
    return cache_bytes(plan.cache_mode, plan.cache, shape.kv_heads, shape.head_dim)


def _staging(shape: Shape, plan: Plan) -> int:
    return staging_bytes(plan.cache_mode, plan.cache, shape.kv_heads, shape.head_dim)


def _tables(shape: Shape, plan: Plan) -> int:
    """Return the bytes of sines and cosines for every position."""
    if not shape.architecture.rotary:
        return 2
    return 2 * plan.context * shape.rotary_dim * 2 * shape.architecture.rope_tables


def _buffers(layout: Layout, plan: Plan, modules: Sequence[Module]) -> int:
    """Return what one device holds besides weights and cache: kernels' scratch, and positions."""
    tables = _tables(layout.shape, plan)
    if not layout.quantised:
        return tables
    return tables + max(_fixed(module, layout.shape, plan) for module in modules)


def _unpacked(matrices: Sequence[Matrix]) -> int:
    return max(2 * min(one.inputs * one.outputs, _MOST_UNPACKED) for one in matrices)


def _fixed(module: Module, shape: Shape, plan: Plan) -> int:
    """Return the scratch space that the kernels of a module need all the time."""
    if module.kind == "head":
        return _unpacked(module.matrices)
    sizes = [0]
    if module.keeps_cache:
        wide = max(shape.heads * shape.head_dim, shape.hidden)
        sizes.append(_rows(plan, wide) + _unpacked(module.matrices[:4]))
    if module.kind == "mlp" and shape.experts:
        rows = 2 * _rows(plan, shape.hidden) + 2 * _rows(plan, shape.intermediate)
        rows += _rows(plan, shape.experts)
        sizes.append(rows + _unpacked(module.matrices[:3]))
    elif module.kind in ("mlp", "block"):
        matrices = module.matrices[4:] if module.kind == "block" else module.matrices
        inner = max(shape.hidden, shape.intermediate)
        sizes.append(_rows(plan, shape.hidden) + 2 * _rows(plan, inner) + _unpacked(matrices))
    return max(sizes)


def _scratch(module: Module, shape: Shape, plan: Plan) -> int:
    """Return the scratch space that exllamav2 reckons with when it splits by hand."""
    fixed = _fixed(module, shape, plan)
    if not module.keeps_cache:
        return fixed
    wide = max(shape.heads * shape.head_dim, shape.hidden)
    attention = _rows(plan, wide) + _unpacked(module.matrices[:4])
    attention += _rows(plan, shape.heads * shape.head_dim)
    attention += 2 * _rows(plan, shape.kv_heads * shape.head_dim)
    if shape.kv_heads != shape.heads:
        attention += 2 * plan.context * shape.heads * shape.head_dim * 2 + 128
    return max(fixed, attention)


def _rows(plan: Plan, width: int) -> int:
    return plan.chunk * width * 2 + 128


def _scores(shape: Shape, plan: Plan, *, paged: bool) -> float:
    """Return what exllamav2 reckons with for one module's attention scores."""
    largest: float = min(plan.chunk**2, plan.context**2)
    if paged:
        largest //= plan.chunk / 190
    return 2 * largest * shape.heads * 2 + 128


def _working(module: Module, layout: Layout, plan: Plan, *, paged: bool) -> int:
    """Return what a module allocates while it reads one chunk."""
    shape, chunk = layout.shape, plan.chunk
    hidden = chunk * shape.hidden * 2
    if module.kind == "head":
        return (plan.slots or _SLOTS) * module.matrices[0].outputs * 2 + hidden
    size = 2 * hidden
    if module.keeps_cache:
        # Query and its answer, key and value.
        size += chunk * 2 * (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
        if not paged:
            size += int(_scores(shape, plan, paged=False))
            if shape.kv_heads != shape.heads:
                size += 2 * plan.context * shape.heads * shape.head_dim * 2
    elif module.kind == "mlp" and not layout.quantised:
        size += 3 * chunk * shape.intermediate * 2
    return size
