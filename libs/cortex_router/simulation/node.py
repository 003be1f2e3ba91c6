"""One simulated node: the one writer of its models, and what it tells the gateway.

As the real one, it asks `next_swaps` after every change while a load waits, and carries the steps
out. It tells a step in a model's life at once, other changes at most every TELL_SECS.
"""

from collections.abc import Sequence
from typing import Protocol

from cortex_router.lifecycle import Life, Status
from cortex_router.nodes import Device, Node
from cortex_router.simulation.agenda import Agenda
from cortex_router.simulation.machines import BadLoad, Fleet, Machine, Model
from cortex_router.simulation.replica import Request, SimReplica
from cortex_router.simulation.results import Recorder
from cortex_router.swapping import Close, Demand, Hold, Reopen, Start, Swapping, next_swaps
from cortex_router.view import Demand as Asked

TELL_SECS = 0.1
#: A failed load stays listed for so long, so that everybody who waited sees why.
FAILED_ROW_SECS = 30.0


class Watcher(Protocol):
    """Who is told."""

    def observed(self, node: "SimNode", moved: Sequence[str] | None) -> None:
        """Take in how a node is, and the models that took a step; None when only numbers moved."""

    def answered(self, request: Request, first_token_at: float) -> None:
        """Take in that an answer is complete."""

    def cut_off(self, request: Request) -> None:
        """Take in that a node died while it had a request."""

    def demand(self, model: str) -> tuple[int, float] | None:
        """Return how many wait for a model and since when, None when nobody does."""


class SimNode:
    """A machine at work."""

    def __init__(
        self,
        machine: Machine,
        fleet: Fleet,
        models: dict[str, Model],
        swapping: Swapping,
        agenda: Agenda,
        recorder: Recorder,
        watcher: Watcher,
    ) -> None:
        self.name = machine.name
        self.alive = True
        self._machine, self._fleet, self._models = machine, fleet, models
        self._profiles = {name: model.profile for name, model in models.items()}
        self._swapping, self._agenda, self._recorder = swapping, agenda, recorder
        self._watcher = watcher
        self._bad_loads = [
            f for f in fleet.faults if isinstance(f, BadLoad) and f.node == machine.name
        ]
        self._replicas: dict[str, SimReplica] = {}
        self._waiting: dict[str, SimReplica] = {}
        self._held_mb = [0] * len(machine.devices_mb)
        self._promised_mb = [0] * len(machine.devices_mb)
        self._devices: tuple[Device, ...] | None = None
        self._asked: dict[str, Asked] = {}
        self._told_at = -TELL_SECS
        self._will_tell = False
        self._look_at: float | None = None

    # --- what others see

    def picture(self) -> Node:
        """Return the node as it says it is; a model that makes way is shown as leaving."""
        return Node(
            name=self.name,
            healthy=self.alive,
            harnesses=self._machine.harnesses,
            devices=self._rooms(),
            replicas=tuple([one.shown() for one in self._replicas.values()]),
        )

    # --- requests

    def take(self, request: Request) -> bool:
        """Answer a request or let it queue; False when the queue is full."""
        model = request.arrival.model
        replica = self._replicas[model]
        now = self._agenda.now
        if len(replica.running) < self._machine.seats:
            self._seat(replica, request)
        elif len(replica.queue) < self._machine.max_queue:
            replica.enqueue(request)
        else:
            return False
        asked = self._asked.get(model)
        self._asked[model] = Asked((asked.now(now) if asked else 0.0) + 1.0, now)
        self._changed()
        return True

    def _seat(self, replica: SimReplica, request: Request) -> None:
        ends_at = replica.seat(request, self._agenda.now)
        self._agenda.enter(ends_at, self._answered, (replica, request, request.attempt))

    def _answered(self, what: tuple[SimReplica, Request, int]) -> None:
        replica, request, attempt = what
        if request.attempt != attempt:
            return
        replica.ended(request, self._agenda.now)
        if replica.queue:
            self._seat(replica, replica.queue.popleft())
        self._changed()
        self._watcher.answered(request, request.first_token_at)

    # --- loads

    def want(self, model: str) -> None:
        """Take in the intent to load a model; it may have to wait for its turn."""
        held = self._replicas.get(model)
        if held is not None and held.status is not Status.FAILED:
            return
        replica = SimReplica(self._machine, self._models[model], self._agenda.now)
        self._replicas[model] = self._waiting[model] = replica
        self._step(just_asked=model)
        self._moved(model)

    def look(self) -> None:
        """Decide again whose turn it is, if anybody waits."""
        if self._waiting:
            self._step()

    def _step(self, just_asked: str | None = None) -> None:
        demands = self._demands(just_asked)
        self._reopen()
        if not demands:
            return
        now = self._agenda.now
        closed = {
            name: one.closed_for
            for name, one in self._replicas.items()
            if one.closed_for is not None and one.status is Status.LOADED
        }
        told = tuple(
            one.told() for name, one in self._replicas.items() if name not in self._waiting
        )
        node = Node(name=self.name, healthy=True, devices=self._rooms(), replicas=told)
        for step in next_swaps(
            node, demands, self._profiles, self._swapping, now, closed=closed, wanted=self._wanted
        ):
            match step:
                case Start():
                    self._start(step)
                case Close(model, wanted_by):
                    self._replicas[model].closes(wanted_by)
                    self._moved(model)
                case Reopen(model):
                    self._replicas[model].closes(None)
                    self._moved(model)
                case Hold(until=until):
                    if until is not None and (self._look_at is None or until < self._look_at):
                        self._look_at = until
                        self._agenda.enter(until, self._due, until)

    def _due(self, at: float) -> None:
        if self._look_at == at:
            self._look_at = None
            self.look()

    def _demands(self, just_asked: str | None) -> list[Demand]:
        """Return who waits for what, without the loads that nobody waits for any more."""
        demands = []
        for name, replica in list(self._waiting.items()):
            waiting = self._watcher.demand(name)
            if waiting is None and name != just_asked:
                del self._waiting[name], self._replicas[name]
                self._moved(name)
                continue
            count, since = waiting or (1, replica.since)
            demands.append(Demand(profile=self._profiles[name], count=count, since=since))
        return demands

    def _reopen(self) -> None:
        for name, one in self._replicas.items():
            if one.closed_for is not None and one.closed_for not in self._waiting:
                one.closes(None)
                self._moved(name)

    def _wanted(self, model: str) -> float | None:
        asked = self._asked.get(model)
        return None if asked is None else asked.per_sec(self._agenda.now)

    def _start(self, step: Start) -> None:
        now, agenda = self._agenda.now, self._agenda
        replica = self._waiting.pop(step.model)
        profile = replica.model.profile
        replica.devices, replica.share_mb = step.devices, profile.share_mb or 0
        for victim in step.evict:
            self._recorder.evicted(self.name, victim.model, now)
            self._leave(self._replicas[victim.model])
        self._hold(self._promised_mb, replica, 1)
        replica.goes_through(Life.PLACED)
        self._recorder.load_began(self.name, step.model, now)
        began = now + (self._fleet.unload_secs if step.evict else 0.0)
        size = replica.share_mb * len(step.devices)
        takes = replica.model.start_secs + size / self._machine.disk_mb_s
        bad = next((f for f in self._bad_loads if f.spoils(step.model, now)), None)
        if bad is None:
            agenda.enter(began + takes, self._up, (replica, began))
        else:
            takes = self._fleet.load_limit_secs if bad.hangs else takes
            agenda.enter(began + takes, self._spoilt, (replica, began))
        self._moved(step.model)

    def _up(self, what: tuple[SimReplica, float]) -> None:
        replica, began = what
        if self._replicas.get(replica.name) is not replica:
            return
        now = self._agenda.now
        self._hold(self._promised_mb, replica, -1)
        self._hold(self._held_mb, replica, 1)
        replica.loaded_at, replica.load_secs = now, now - began
        replica.goes_through(Life.UP)
        self._recorder.loading_secs += now - began
        self._moved(replica.name)
        self.look()

    def _spoilt(self, what: tuple[SimReplica, float]) -> None:
        replica, began = what
        if self._replicas.get(replica.name) is not replica:
            return
        self._hold(self._promised_mb, replica, -1)
        replica.devices = ()
        replica.goes_through(Life.FAILED)
        self._recorder.failed_loads += 1
        self._recorder.loading_secs += self._agenda.now - began
        self._agenda.enter(self._agenda.now + FAILED_ROW_SECS, self._row_ends, replica)
        self._moved(replica.name)
        self.look()

    def _row_ends(self, replica: SimReplica) -> None:
        if self._replicas.get(replica.name) is replica:
            del self._replicas[replica.name]
            self._moved(replica.name)

    def _leave(self, replica: SimReplica) -> None:
        replica.goes_through(Life.LEAVE)
        replica.closes(None)
        self._count_loaded(replica, self._agenda.now)
        self._agenda.enter(self._agenda.now + self._fleet.unload_secs, self._gone, replica)
        self._moved(replica.name)

    def _gone(self, replica: SimReplica) -> None:
        if self._replicas.get(replica.name) is not replica:
            return
        self._hold(self._held_mb, replica, -1)
        del self._replicas[replica.name]
        self._moved(replica.name)
        self.look()

    def _hold(self, account: list[int], replica: SimReplica, sign: int) -> None:
        for index in replica.devices:
            account[index] += sign * replica.share_mb
        self._devices = None

    def _count_loaded(self, replica: SimReplica, until: float) -> None:
        if replica.loaded_at is not None:
            secs = max(0.0, until - replica.loaded_at)
            self._recorder.loaded_seat_secs += secs * self._machine.seats

    # --- life and death

    def dies(self) -> None:
        """Lose everything: models, requests, promises."""
        self.alive = False
        lost = [r for one in self._replicas.values() for r in (*one.running, *one.queue)]
        names = tuple(self._replicas)
        for replica in self._replicas.values():
            if replica.status is Status.LOADED:
                self._count_loaded(replica, self._agenda.now)
        self._replicas, self._waiting, self._asked = {}, {}, {}
        self._held_mb = [0] * len(self._held_mb)
        self._promised_mb = [0] * len(self._held_mb)
        self._devices, self._look_at = None, None
        self._watcher.observed(self, names)
        for request in lost:
            self._watcher.cut_off(request)

    def comes_back(self) -> None:
        """Be there again, empty."""
        self.alive = True
        self._watcher.observed(self, ())

    def closes_books(self, at: float) -> None:
        """Count what is loaded at the end."""
        for replica in self._replicas.values():
            if replica.status is Status.LOADED:
                self._count_loaded(replica, at)

    # --- telling

    def _moved(self, model: str) -> None:
        self._told_at = self._agenda.now
        self._watcher.observed(self, (model,))

    def _changed(self) -> None:
        if self._waiting:
            self._step()
        if self._will_tell:
            return
        now, at = self._agenda.now, self._told_at + TELL_SECS
        if now >= at:
            self._told_at = now
            self._watcher.observed(self, None)
        else:
            self._will_tell = True
            self._agenda.enter(at, self._tell, None)

    def _tell(self, _nothing: None) -> None:
        self._will_tell = False
        self._told_at = self._agenda.now
        if self.alive:
            self._watcher.observed(self, None)

    def _rooms(self) -> tuple[Device, ...]:
        if self._devices is None:
            self._devices = tuple(
                Device(index=i, total_mb=total, free_mb=total - held, reserved_mb=promised)
                for i, (total, held, promised) in enumerate(
                    zip(self._machine.devices_mb, self._held_mb, self._promised_mb, strict=True)
                )
            )
        return self._devices
