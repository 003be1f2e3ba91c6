"""Cut every layer of a model over several devices, as exllamav2 does. Pure.

Heads of the cache, rows of the MLP, of the hidden state and of the vocabulary are dealt out by what
each device has free, and after the heads by what is then left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cortex_neuron.exllama.cache_modes import CACHE_MODES
from cortex_neuron.exllama.layout import Layout, Matrix, Module
from cortex_neuron.exllama.plan import Plan

_MIB = 1 << 20
_MOST_UNPACKED = 512 * 1024**2

#: Bytes for one number of a cache, as the cut reckons with them.
_RECKONED = dict(zip(CACHE_MODES, (2, 8.5 / 8, 6.5 / 8, 4.5 / 8), strict=True))


@dataclass(frozen=True, slots=True)
class Shares:
    """How much of each kind of row every device has."""

    kv: tuple[int, ...]
    query: tuple[int, ...]
    inner: tuple[int, ...]
    hidden: tuple[int, ...]
    vocabulary: tuple[int, ...]

    @property
    def devices(self) -> tuple[int, ...]:
        """The devices that take part."""
        every = zip(self.kv, self.inner, self.vocabulary, strict=True)
        return tuple(index for index, parts in enumerate(every) if any(parts))

    def rows_of(self, module: Module) -> Sequence[tuple[Matrix, tuple[int, ...]]]:
        """Return each matrix of a module with how its rows are dealt out."""
        dealt: tuple[tuple[int, ...], ...]
        if module.kind == "attention":
            dealt = (self.query, self.kv, self.kv, self.query)
        elif module.kind == "mlp":
            dealt = (self.inner, self.inner, self.hidden)[-len(module.matrices) :]
        else:
            dealt = (self.vocabulary,) * len(module.matrices)
        return tuple(zip(module.matrices, dealt, strict=True))

    def bytes_on(self, module: Module, device: int) -> int:
        """Return what `device` holds of a module's weights."""
        if module.kind == "embedding":
            return 0
        total = 0
        for matrix, dealt in self.rows_of(module):
            if dealt[device]:
                whole = matrix.loaded - matrix.divided
                total += whole + matrix.divided * dealt[device] // sum(dealt)
        where = {"attention": self.kv, "mlp": self.hidden}.get(module.kind, self.vocabulary)
        return total + (module.norms if where[device] else 0)


def shares(layout: Layout, plan: Plan, rooms_mb: Sequence[float]) -> Shares:
    """Return the cut of `layout` over devices that have `rooms_mb` free."""
    shape = layout.shape
    kv = deal(shape.kv_heads, rooms_mb)
    ratio = [heads / shape.kv_heads for heads in kv]
    element = _RECKONED[plan.cache_mode]
    cache = 2 * element * shape.kv_heads * shape.head_dim * shape.layers * plan.cache
    left = [max(0.0, room - int(cache * r / _MIB)) for room, r in zip(rooms_mb, ratio, strict=True)]
    for module in layout.modules:
        if module.kind == "attention":
            left = [
                max(0.0, room - int(module.footprint * r / _MIB))
                for room, r in zip(left, ratio, strict=True)
            ]
    groups = shape.heads // shape.kv_heads
    return Shares(
        kv=kv,
        query=tuple(heads * groups for heads in kv),
        inner=tuple(part * 128 for part in deal(shape.intermediate // 128, left, 2)),
        hidden=tuple(part * 32 for part in deal(shape.hidden // 32, left, 8)),
        vocabulary=tuple(part * 32 for part in deal(-(-shape.vocabulary // 32), left, 16)),
    )


def deal(count: int, rooms: Sequence[float], least: int = 0) -> tuple[int, ...]:
    """Return `count` dealt out in proportion to `rooms`; who would get less than `least` gets 0."""
    whole = sum(rooms) or 1.0
    exact = [count * room / whole for room in rooms]
    parts = [int(part) for part in exact]
    over = [part - taken for part, taken in zip(exact, parts, strict=True)]
    for _ in range(count - sum(parts)):
        first = over.index(max(over))
        parts[first] += 1
        over[first] -= 1
    small = sum(part for part in parts if part < least)
    parts = [part if part >= least else 0 for part in parts]
    for _ in range(small):
        held = [index for index, part in enumerate(parts) if part]
        # Where everybody had too little, the last takes all.
        parts[min(held, key=parts.__getitem__) if held else -1] += 1
    return tuple(parts)


def scratch_of_shares(layout: Layout, plan: Plan, cut: Shares) -> tuple[int, ...]:
    """Return the scratch space on each device: the largest that any module wants there."""
    each = [_wanted(module, layout, plan, cut) for module in layout.modules[1:]]
    return tuple(max(sizes) for sizes in zip(*each, strict=True))


def _wanted(module: Module, layout: Layout, plan: Plan, cut: Shares) -> Sequence[int]:
    shape, rows = layout.shape, plan.chunk * 2
    count = len(cut.kv)
    unpacked = [
        max(
            (
                2
                * min(matrix.inputs * dealt[index] * _width(module, shape.head_dim), _MOST_UNPACKED)
                for matrix, dealt in cut.rows_of(module)
            ),
            default=0,
        )
        for index in range(count)
    ]
    if module.kind == "attention":
        query, narrow = cut.query, cut.kv
        wide = 3 * sum(query) * shape.head_dim
        return [
            unpacked[i]
            + (rows * wide if query[i] else 0)
            + rows * shape.head_dim * (2 * query[i] + 2 * narrow[i])
            for i in range(count)
        ]
    if module.kind == "mlp":
        inner, hidden = cut.inner, cut.hidden
        return [
            unpacked[i]
            + (rows * 2 * sum(hidden) if hidden[i] else 0)
            + (rows * sum(inner) if inner[i] else 0)
            + rows * (2 * inner[i] + hidden[i])
            for i in range(count)
        ]
    return unpacked


def _width(module: Module, head_dim: int) -> int:
    return head_dim if module.kind == "attention" else 1
