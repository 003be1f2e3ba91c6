"""Whose turn it is: loads that wait for memory, and the models that give way to them.

An intent stays here from the moment its model is ready to start until memory has been promised to
it. Who leaves, and when, is `cortex_router.next_swaps`'s decision on live state, taken again after
every change: a resident serves its time, then takes no new requests, ends those it has, and goes.
Nobody is cut off, and nobody waits beyond the bound stated there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import structlog

from cortex_core.errors import ApiError, Unavailable
from cortex_neuron.resident import Resident
from cortex_neuron.room import Room
from cortex_router import Close, Demand, Hold, Reopen, Start, Status, Swapping, next_swaps

log = structlog.get_logger()

#: An intent that nobody repeats for so long is no longer wanted: its clients have gone.
LAPSE_SECS = 15.0
#: Memory that others on this machine take or free is looked at this often while somebody waits.
LOOK_SECS = 2.0


@dataclass(slots=True)
class Wanting:
    """A load that waits, and what it was last told."""

    resident: Resident
    needed_mb: int
    promised: asyncio.Future[list[Resident]]
    position: int = 0
    until: float | None = None
    reason: str = field(default="")


class Turns:
    """The loads that wait for memory on this node."""

    def __init__(
        self,
        *,
        room: Room,
        residents: Mapping[str, Resident],
        swapping: Swapping,
        measure: Callable[[], Awaitable[object]],
        leave: Callable[[Resident], None],
        moved: Callable[[], None],
        lapse_secs: float = LAPSE_SECS,
    ) -> None:
        self._room = room
        self._residents = residents
        self._swapping = swapping
        self._measure = measure
        self._leave = leave
        self._moved = moved
        self._lapse_secs = lapse_secs
        self._wanting: dict[str, Wanting] = {}
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def stir(self) -> None:
        """Look again soon: something has changed."""
        self._stirred.set()

    def waiting(self, model: str) -> Wanting | None:
        """Return the load of `model`, if it waits for its turn."""
        return self._wanting.get(model)

    async def turn(self, resident: Resident, needed_mb: int) -> list[Resident]:
        """Wait until memory has been promised to a model; return who has to be gone first.

        Raises InsufficientVram when it can never be, Unavailable when nobody repeats the intent.
        """
        promised: asyncio.Future[list[Resident]] = asyncio.get_running_loop().create_future()
        self._wanting[resident.id] = Wanting(resident, needed_mb, promised)
        self.stir()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            return await promised
        finally:
            self._wanting.pop(resident.id, None)
            self.stir()

    async def _run(self) -> None:
        """Decide after every change for as long as somebody waits."""
        while self._wanting:
            self._stirred.clear()
            try:
                await self._measure()
                limit = self._step(time.time())
            except Exception as error:  # whoever waits must hear of it
                log.exception("turns.crashed")
                for wanting in self._wanting.values():
                    if not wanting.promised.done():
                        wanting.promised.set_exception(error)
                return
            try:
                async with asyncio.timeout(limit):
                    await self._stirred.wait()
            except TimeoutError:
                continue
        self._reopen(frozenset())

    def _step(self, now: float) -> float:
        """Carry out what can be done now, without an await; return when to look again, in secs."""
        for wanting in [one for one in self._wanting.values() if not one.promised.done()]:
            self._drop_if_hopeless(wanting, now)
        pending = {m: w for m, w in self._wanting.items() if not w.promised.done()}
        self._reopen(frozenset(pending))
        demands = [_demand(wanting, now) for wanting in pending.values()]
        steps = next_swaps(
            self._room.picture(self._residents, waiting=pending),
            demands,
            self._room.profiles(self._residents),
            self._swapping,
            now,
            closed={
                r.id: r.closed_for for r in self._residents.values() if r.closed_for is not None
            },
        )
        for position, demand in enumerate(sorted(demands, key=lambda d: (d.since, d.profile.id))):
            pending[demand.profile.id].position = position + 1
        limit = LOOK_SECS
        for one in steps:
            match one:
                case Start():
                    self._start(pending[one.model], one)
                case Close(model, wanted_by):
                    log.info("model.closing", model=model, wanted_by=wanted_by)
                    self._residents[model].close_for(wanted_by)
                    self._moved()
                case Reopen(model):
                    log.info("model.reopened", model=model)
                    self._residents[model].reopen()
                    self._moved()
                case Hold(model, until, reason):
                    pending[model].until, pending[model].reason = until, reason
                    if until is not None:
                        limit = min(limit, max(0.01, until - now))
        return limit

    def _drop_if_hopeless(self, wanting: Wanting, now: float) -> None:
        resident = wanting.resident
        resident.intents.lapse(now, self._lapse_secs)
        if resident.intents.count == 0 and not resident.awaited:
            gone = Unavailable(f"nobody waits for {resident.id!r} any more", retry_after_secs=1)
            wanting.promised.set_exception(gone)
            return
        refusal = self._room.never(resident.request, wanting.needed_mb, self._residents)
        if refusal is not None:
            wanting.promised.set_exception(refusal)

    def _start(self, wanting: Wanting, step: Start) -> None:
        resident = wanting.resident
        victims = [victim.model for victim in step.evict]
        try:
            self._room.promise(resident.id, step.devices, wanting.needed_mb, victims)
        except ApiError as error:
            wanting.promised.set_exception(error)
            return
        resident.devices = step.devices
        leaving = [self._residents[name] for name in victims]
        for victim in leaving:
            self._leave(victim)
        wanting.promised.set_result(leaving)

    def _reopen(self, wanted: frozenset[str]) -> None:
        """Let models serve on that were closing for one which no longer waits."""
        for resident in self._residents.values():
            if (
                resident.closed_for is not None
                and resident.closed_for not in wanted
                and resident.status is Status.LOADED
            ):
                log.info("model.reopened", model=resident.id)
                resident.reopen()
                self._moved()


def _demand(wanting: Wanting, now: float) -> Demand:
    resident = wanting.resident
    since = resident.intents.since
    return Demand(
        profile=resident.profile(wanting.needed_mb),
        count=max(1, resident.intents.count),
        since=min(now, resident.asked_at if since is None else since),
    )
