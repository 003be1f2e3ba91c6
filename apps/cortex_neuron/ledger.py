"""Who holds how much of which device: the one place where memory is promised.

Reserve before a load starts, settle to what the engine really took, release when it has gone. Room
on a device is what the last reading found free, less what loads in progress were promised and have
not taken yet; so what strangers hold is seen and never promised. No awaits: a caller that reserves
and marks victims in one go cannot be interleaved. All sizes are MiB.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cortex_core.errors import InsufficientVram


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What one model holds on each device; `settled` once the engine is up.

    `taken_mb` is what its process was last seen to hold, `free_before_mb` what was free when its
    engine started.
    """

    shares_mb: Mapping[int, int]
    taken_mb: Mapping[int, int] = field(default_factory=dict)
    free_before_mb: Mapping[int, int] = field(default_factory=dict)
    settled: bool = False

    @property
    def devices(self) -> tuple[int, ...]:
        """The devices it is on."""
        return tuple(self.shares_mb)

    @property
    def whole_mb(self) -> int:
        """What it holds in all."""
        return sum(self.shares_mb.values())

    def awaited_mb(self, device: int) -> int:
        """Return what it was promised on `device` and has not taken yet."""
        if self.settled:
            return 0
        return max(0, self.shares_mb.get(device, 0) - self.taken_mb.get(device, 0))


class Ledger:
    """Memory of this node's devices."""

    def __init__(self, totals_mb: Mapping[int, int | None]) -> None:
        self._totals = dict(totals_mb)
        self._free: dict[int, int | None] = dict(totals_mb)
        self._held: dict[str, Allocation] = {}

    @property
    def held(self) -> Mapping[str, Allocation]:
        """Every allocation by model id."""
        return self._held

    def observe(
        self, free_mb: Mapping[int, int | None], taken_mb: Mapping[str, Mapping[int, int]]
    ) -> None:
        """Take in one reading: free per device, and what each model's engine holds on each.

        An unknown never overwrites a known number.
        """
        for index, free in free_mb.items():
            if free is not None:
                self._free[index] = free
        for model, taken in taken_mb.items():
            if (held := self._held.get(model)) is not None:
                shares = _on(held.devices, taken) if held.settled else held.shares_mb
                self._held[model] = replace(held, taken_mb=dict(taken), shares_mb=shares)

    def free_mb(self, device: int) -> int | None:
        """Return what the last reading found free."""
        return self._free.get(device)

    def reserved_mb(self, device: int) -> int:
        """Return what loads in progress were promised on `device` and have not taken yet."""
        return sum(held.awaited_mb(device) for held in self._held.values())

    def room_mb(self, device: int, leaving: Collection[str] = ()) -> int | None:
        """Return what a new load may take on `device` once `leaving` have gone."""
        free = self._free.get(device)
        if free is None:
            return None
        back = sum(
            held.shares_mb.get(device, 0) for model, held in self._held.items() if model in leaving
        )
        return free + back - self.reserved_mb(device)

    def facts(self, device: int, needed_mb: int) -> dict[str, Any]:
        """Return the arithmetic of one device, as a refusal shows it."""
        return {
            "index": device,
            "needed_mb": needed_mb,
            "free_mb": self._free.get(device),
            "reserved_mb": self.reserved_mb(device),
            "total_mb": self._totals.get(device),
            "held_mb": sum(
                held.shares_mb.get(device, 0) for held in self._held.values() if held.settled
            ),
        }

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
            free = min(max(0, room) for room in short.values())
            raise InsufficientVram(
                f"{model!r} needs {share} MiB on each of devices {list(devices)}; "
                f"{free} MiB can be had",
                extra={
                    "needed_mb": whole_mb,
                    "free_mb": free,
                    "per_device": [self.facts(index, share) for index in devices],
                    "evictable": sorted(evictable),
                },
            )
        self._held[model] = Allocation(shares_mb=dict.fromkeys(devices, share))

    def missing_mb(self, model: str) -> int:
        """Return how much less is free now than `model` was promised, on its worst device."""
        # Its own promise is among what is reserved there.
        rooms = [self.room_mb(index) for index in self._held[model].devices]
        return max(0, *(-room for room in rooms if room is not None))

    def begin(self, model: str) -> None:
        """Note what is free as the engine of `model` starts; it is a load in progress again."""
        held = self._held[model]
        before = {i: free for i in held.devices if (free := self._free.get(i)) is not None}
        self._held[model] = replace(held, free_before_mb=before, taken_mb={}, settled=False)

    def settle(self, model: str, taken_mb: Mapping[int, int] | None) -> None:
        """Replace the promise by what the engine took on each device.

        None: nobody can tell whose memory is whose. Then it is what has gone since `begin`, where
        no other load was in progress; else the promise stands.
        """
        held = self._held[model]
        if taken_mb:
            shares = _on(held.devices, taken_mb)
        else:
            gone = {index: self._gone_since(model, index) for index in held.devices}
            shares = {index: gone[index] or share for index, share in held.shares_mb.items()}
        self._held[model] = replace(
            held, shares_mb=shares, taken_mb=dict(taken_mb or {}), settled=True
        )

    def release(self, model: str) -> None:
        """Forget what `model` held. Whether its memory came back is for the next reading to say."""
        self._held.pop(model, None)

    def _gone_since(self, model: str, device: int) -> int | None:
        """Return what became used on `device` since the engine started, if it was alone in it."""
        before, now = self._held[model].free_before_mb.get(device), self._free.get(device)
        others = (held for name, held in self._held.items() if name != model)
        crowded = any(device in held.devices and not held.settled for held in others)
        if before is None or now is None or crowded or now >= before:
            return None
        return before - now


def _on(devices: Collection[int], taken_mb: Mapping[int, int]) -> dict[int, int]:
    """Return what was taken on each of `devices`: nothing seen there is nothing taken."""
    return {index: taken_mb.get(index, 0) for index in devices}
