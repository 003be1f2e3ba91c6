"""Who holds how much of which device: the one place where memory is promised.

Reserve before a load starts, settle to what the engine really took, release when it has gone. Room
on a device is what the last reading found free, less what loads in progress were promised and have
not taken yet. No awaits: a caller that reserves and marks victims in one go cannot be interleaved.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cortex_core.errors import InsufficientVram


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What one model holds: `share_mb` on each device; `settled` once the engine is up."""

    devices: tuple[int, ...]
    share_mb: int
    settled: bool = False
    taken_mb: int = 0


class Ledger:
    """Memory of this node's devices, in MiB."""

    def __init__(self, totals_mb: Mapping[int, int | None]) -> None:
        self._totals = dict(totals_mb)
        self._free: dict[int, int | None] = dict(totals_mb)
        self._held: dict[str, Allocation] = {}

    @property
    def held(self) -> Mapping[str, Allocation]:
        """Every allocation by model id."""
        return self._held

    def observe(self, free_mb: Mapping[int, int | None], taken_mb: Mapping[str, int]) -> None:
        """Take in one reading: free per device, and what each model's engine holds in all.

        An unknown never overwrites a known number.
        """
        for index, free in free_mb.items():
            if free is not None:
                self._free[index] = free
        for model, taken in taken_mb.items():
            if (held := self._held.get(model)) is not None:
                share = -(-taken // len(held.devices))
                grown = replace(held, taken_mb=share)
                self._held[model] = replace(grown, share_mb=share) if held.settled else grown

    def free_mb(self, device: int) -> int | None:
        """Return what the last reading found free."""
        return self._free.get(device)

    def reserved_mb(self, device: int) -> int:
        """Return what loads in progress were promised on `device` and have not taken yet."""
        return sum(
            max(0, held.share_mb - held.taken_mb)
            for held in self._held.values()
            if not held.settled and device in held.devices
        )

    def room_mb(self, device: int, leaving: Collection[str] = ()) -> int | None:
        """Return what a new load may take on `device` once `leaving` have gone."""
        free = self._free.get(device)
        if free is None:
            return None
        back = sum(
            held.share_mb
            for model, held in self._held.items()
            if model in leaving and device in held.devices
        )
        return free + back - self.reserved_mb(device)

    def reserve(
        self,
        model: str,
        devices: Sequence[int],
        whole_mb: int,
        *,
        leaving: Collection[str] = (),
        evictable: Collection[str] = (),
    ) -> None:
        """Promise `whole_mb`, split evenly, on `devices`. Raises InsufficientVram untouched."""
        share = -(-whole_mb // len(devices))
        short = {
            index: room
            for index in devices
            if (room := self.room_mb(index, leaving)) is not None and room < share
        }
        if short:
            per_device: list[dict[str, Any]] = [
                {
                    "index": index,
                    "needed_mb": share,
                    "free_mb": self._free.get(index),
                    "reserved_mb": self.reserved_mb(index),
                    "total_mb": self._totals.get(index),
                }
                for index in devices
            ]
            free = min(max(0, room) for room in short.values())
            raise InsufficientVram(
                f"{model!r} needs {share} MiB on each of devices {list(devices)}; "
                f"{free} MiB can be had",
                extra={
                    "needed_mb": whole_mb,
                    "free_mb": free,
                    "per_device": per_device,
                    "evictable": sorted(evictable),
                },
            )
        self._held[model] = Allocation(devices=tuple(devices), share_mb=share)

    def settle(self, model: str, used_mb: int | None) -> None:
        """Replace the promise by what the engine really took; None keeps the promise's size."""
        held = self._held[model]
        share = held.share_mb if used_mb is None else -(-used_mb // len(held.devices))
        self._held[model] = replace(held, share_mb=share, taken_mb=share, settled=True)

    def release(self, model: str) -> None:
        """Forget what `model` held; the memory counts as free until the next reading says more."""
        if (held := self._held.pop(model, None)) is None:
            return
        if held.settled:
            for index in held.devices:
                if (free := self._free.get(index)) is not None:
                    self._free[index] = free + held.share_mb
