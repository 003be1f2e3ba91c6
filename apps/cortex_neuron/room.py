"""Where on this node a model goes and who leaves for it: decided on live state, in one step.

The same pure `place` that the gateway ranks nodes with decides here, on what is true now. A
caller's `evict` is its permission, not an order: who is busy stays, and nobody leaves who need
not.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cortex_core.errors import ApiError, InsufficientVram, InvalidRequest
from cortex_core.wire import LoadRequest
from cortex_neuron.ledger import Ledger
from cortex_neuron.resident import HERE, Resident
from cortex_router import Device, Node, NoFit, Profile, Replica, Rules, Status, place

#: Who is on the way in or out: how much room there will be is not settled yet.
_PASSING = frozenset({Status.LOADING, Status.UNLOADING, Status.RECOVERING})


@dataclass(frozen=True, slots=True)
class Place:
    """Devices whose memory has been promised, and the models that have to leave them first."""

    devices: tuple[int, ...]
    victims: tuple[str, ...]


class Room:
    """The devices of this node, and the ledger of their memory."""

    def __init__(self, ledger: Ledger, devices: tuple[Device, ...]) -> None:
        self._ledger = ledger
        self._devices = devices

    def reserve(
        self, request: LoadRequest, needed_mb: int, residents: Mapping[str, Resident]
    ) -> Place:
        """Promise `needed_mb` for a model. Raises InsufficientVram or InvalidRequest, untouched.

        No await in it: whoever marks the victims right after cannot be interleaved.
        """
        wanted = self._wanted(request)
        count = len(wanted) if wanted else request.tensor_parallel or 1
        model = request.model_id
        profile = Profile(id=model, size_mb=needed_mb, min_devices=count, priority=0)
        may_leave = {
            other: Profile(id=other, priority=0 if other in request.evict else 1)
            for other in residents
        }
        picture = self.picture(residents, waiting=(model,))
        placement = place(picture, profile, may_leave, Rules(), time.time(), only_devices=wanted)
        if isinstance(placement, NoFit):
            raise self._refusal(request, needed_mb, placement, residents)
        victims = tuple(victim.model for victim in placement.evict)
        self.promise(model, placement.devices, needed_mb, victims)
        return Place(placement.devices, victims)

    def promise(
        self, model: str, devices: tuple[int, ...], needed_mb: int, victims: Collection[str]
    ) -> None:
        """Promise memory on exactly these devices once `victims` have left."""
        self._ledger.reserve(model, devices, needed_mb, leaving=victims)

    def never(
        self, request: LoadRequest, needed_mb: int, residents: Mapping[str, Resident]
    ) -> ApiError | None:
        """Return why an intent can never be carried out here, None when it can in time."""
        try:
            wanted = self._wanted(request)
        except InvalidRequest as error:
            return error
        incoming = residents[request.model_id].profile(needed_mb)
        placement = place(
            self.picture(residents, waiting=(request.model_id,)),
            incoming,
            self.profiles(residents),
            Rules(),
            time.time(),
            only_devices=wanted,
            once_idle=True,
        )
        unlike = isinstance(placement, NoFit) and not any(
            resident.status in _PASSING for resident in residents.values()
        )
        if isinstance(placement, NoFit) and unlike:
            return self._refusal(request, needed_mb, placement, residents)
        return None

    def profiles(self, residents: Mapping[str, Resident]) -> dict[str, Profile]:
        """Return what placement has to know of everyone here."""
        return {
            name: one.profile(held.whole_mb)
            for name, one in residents.items()
            if (held := self._ledger.held.get(name)) is not None
        }

    def _wanted(self, request: LoadRequest) -> tuple[int, ...] | None:
        """Return the devices that were asked for, once they make sense."""
        wanted, split = request.devices, request.tensor_parallel
        if not wanted:
            return None
        if split and len(wanted) != split:
            message = f"tensor_parallel is {split}, yet {len(wanted)} devices are named"
            raise InvalidRequest(message, param="devices")
        known = [device.index for device in self._devices]
        if missing := [index for index in wanted if index not in known]:
            message = f"this node has no device {missing[0]}, only {known}"
            raise InvalidRequest(message, param="devices")
        return wanted

    def picture(self, residents: Mapping[str, Resident], waiting: Collection[str]) -> Node:
        """Return this node as the router's pure functions see it, without those who `waiting`."""
        replicas = tuple(
            Replica(
                model=r.id,
                status=r.status,
                devices=r.devices,
                used_mb=held.whole_mb,
                in_flight=r.admission.in_flight,
                queued=r.admission.queue_depth,
                last_used=r.last_used,
                loaded_at=r.loaded_at,
                load_secs=r.load_secs,
            )
            for r in residents.values()
            if r.id not in waiting and (held := self._ledger.held.get(r.id)) is not None
        )
        devices = tuple(
            Device(index=d.index, total_mb=d.total_mb, free_mb=self._ledger.room_mb(d.index))
            for d in self._devices
        )
        return Node(name=HERE, healthy=True, devices=devices, replicas=replicas)

    def short(
        self, request: LoadRequest, residents: Mapping[str, Resident], *, reason: str
    ) -> ApiError:
        """Return why a load ended for which memory had been promised, with the arithmetic."""
        held = self._ledger.held[request.model_id]
        told = {
            "memory_not_back": "what was unloaded for it has not come back, or a stranger took it",
            "out_of_memory": "its engine ran out of memory while it loaded; it needs more than "
            "was reckoned: give it vram_mb, a smaller context or another quant",
        }
        free = [self._ledger.free_mb(index) or 0 for index in held.devices]
        return InsufficientVram(
            f"{request.model_id!r} does not fit: {told[reason]}",
            extra={
                "reason": reason,
                "needed_mb": held.whole_mb,
                "free_mb": min(free, default=0),
                "per_device": [
                    self._ledger.facts(index, share) for index, share in held.shares_mb.items()
                ],
                "evictable": _evictable(residents),
            },
        )

    def _refusal(
        self,
        request: LoadRequest,
        needed_mb: int,
        placement: NoFit,
        residents: Mapping[str, Resident],
    ) -> ApiError:
        """Return the arithmetic of one refusal."""
        model, wanted = request.model_id, request.devices or None
        count = len(wanted) if wanted else request.tensor_parallel or 1
        rooms = {d.index: self._ledger.room_mb(d.index) for d in self._devices}
        per_device = [
            self._ledger.facts(d.index, -(-needed_mb // count))
            for d in self._devices
            if wanted is None or d.index in wanted
        ]
        known = [room for row in per_device if (room := rooms[row["index"]]) is not None]
        return InsufficientVram(
            f"{model!r} does not fit: {placement.detail}",
            extra={
                "reason": placement.reason,
                "needed_mb": needed_mb,
                "free_mb": max(known, default=0),
                "per_device": per_device,
                "evictable": _evictable(residents),
            },
        )


def _evictable(residents: Mapping[str, Resident]) -> list[str]:
    return sorted(
        r.id
        for r in residents.values()
        if r.status is Status.LOADED and r.admission.in_flight + r.admission.queue_depth == 0
    )
