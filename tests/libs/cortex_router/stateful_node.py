"""One whole node in miniature: devices, models, a fair queue and `next_swaps`, on its own clock.

It carries out what the library says the way a node does, and checks after everything that happens
what must always hold. How long things take, and whether a load succeeds, is drawn from a seed.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from random import Random

from cortex_router import (
    Admitted,
    Close,
    Demand,
    Device,
    FairQueue,
    Hold,
    Life,
    Node,
    NoFit,
    Outcome,
    Profile,
    Refused,
    Reopen,
    Replica,
    Rules,
    Start,
    Status,
    Swapping,
    SwapStep,
    Ticket,
    next_swaps,
    place,
    step,
)
from tests.libs.cortex_router.stateful_checks import HERE, Checks, Violation, must

#: Unix seconds at the start; the clock may step, time itself does not.
EPOCH = 1_000_000.0
#: Steps that lead to steps end after a few rounds, or never.
MOST_ROUNDS = 10
#: A timer is never early.
TIMER_LATE_SECS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How long things take, from and to, and how often loads go wrong."""

    service_secs: tuple[float, float] = (0.2, 5.0)
    load_secs: tuple[float, float] = (1.0, 8.0)
    unload_secs: tuple[float, float] = (0.1, 3.0)
    load_limit_secs: float = 20.0
    load_fails: float = 0.0
    load_hangs: float = 0.0
    seats: int = 2
    max_waiting: int = 6
    max_per_principal: int = 1


@dataclass(slots=True, eq=False)
class Held:
    """A model on the node. It really takes memory once `begun`."""

    status: Status
    devices: tuple[int, ...]
    share_mb: int
    waits_for: set[str]
    begun: bool = False
    loaded_at: float | None = None
    load_secs: float | None = None
    last_used: float | None = None
    closed_for: str | None = None


@dataclass(slots=True)
class Request:
    """A request without an outcome yet."""

    ticket: Ticket
    came: float
    service_secs: float
    seated: bool = False


class MiniatureNode:
    """The node. `NodeModel` adds what can happen to it."""

    def __init__(
        self,
        totals_mb: tuple[int, ...],
        catalogue: Mapping[str, Profile],
        *,
        seed: int = 0,
        habits: Habits | None = None,
        swapping: Swapping | None = None,
    ) -> None:
        self.habits = habits or Habits()
        self.swapping = swapping or Swapping()
        self.totals_mb = totals_mb
        self.catalogue = dict(catalogue)
        self.time = 0.0
        self.clock_ahead = EPOCH
        self.alive, self.draining = True, False
        self.held: dict[str, Held] = {}
        self.outcomes: Counter[str] = Counter()
        self.starts = self.requests = self.events = self.disturbances = 0
        self.on_seat: Callable[[float], None] = lambda _waited_secs: None
        self.checks = Checks()
        self._open: dict[str, Request] = {}
        self.holds: dict[str, Hold] = {}
        self.look_at: float | None = None
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()
        self._random = Random(seed)
        self.queue = self._empty_queue()

    @property
    def now(self) -> float:
        """What the node's clock shows."""
        return self.time + self.clock_ahead

    @property
    def waiting_or_served(self) -> tuple[str, ...]:
        """The ids of all requests without an outcome."""
        return tuple(self._open)

    def _settle(self) -> None:
        """Ask the library what to do now, do it, and check."""
        self.events += 1
        self.look_at = None
        self._take(self.queue.expire(self.now))
        if self.alive:
            steps = self._swap()
            self.holds = {one.model: one for one in steps if isinstance(one, Hold)}
            looks = [h.until for h in self.holds.values() if h.until is not None]
            if (deadline := self.queue.next_deadline()) is not None:
                looks.append(deadline)
            self.look_at = min(looks, default=None)
        self.checks.check(self)

    def _swap(self) -> tuple[SwapStep, ...]:
        """Carry out what the library says until there is nothing to do; return its last word."""
        for _ in range(MOST_ROUNDS):
            if not self._carry_out(steps := self._swaps()):
                return steps
        raise Violation("steps lead to steps without end")

    def _swaps(self) -> tuple[SwapStep, ...]:
        demands = self.demands()
        closed = {m: held.closed_for for m, held in self.held.items() if held.closed_for}
        if not demands and not closed:
            return ()
        return next_swaps(
            self.picture(), demands, self.catalogue, self.swapping, self.now, closed=closed
        )

    def demands(self) -> list[Demand]:
        """Return who waits for a model that is not being served."""
        found = []
        for model in self.queue.wanted():
            waiting = self.queue.waiting(model)
            assert waiting is not None
            profile = self.profile(model)
            found.append(Demand(profile=profile, count=waiting.count, since=waiting.since))
        return found

    def picture(self) -> Node:
        """Return the node as the library sees it."""
        replicas = tuple(
            Replica(
                model=model,
                status=held.status,
                devices=held.devices,
                used_mb=held.share_mb * len(held.devices),
                in_flight=self.queue.in_flight(model),
                queued=self.queue.queued(model),
                last_used=held.last_used,
                loaded_at=held.loaded_at,
                load_secs=held.load_secs,
            )
            for model, held in self.held.items()
        )
        devices = []
        for index, total in enumerate(self.totals_mb):
            here = [held for held in self.held.values() if index in held.devices]
            up = sum(h.share_mb for h in here if h.status is not Status.LOADING)
            promised = sum(h.share_mb for h in here if h.status is Status.LOADING)
            devices.append(
                Device(index=index, total_mb=total, free_mb=total - up, reserved_mb=promised)
            )
        return Node(name=HERE, healthy=True, devices=tuple(devices), replicas=replicas)

    def _carry_out(self, steps: tuple[SwapStep, ...]) -> bool:
        """Do what was said; tell whether anything was."""
        for one in steps:
            match one:
                case Start(model, devices, evict):
                    self._start(model, devices, {victim.model for victim in evict})
                case Close(model, wanted_by):
                    held = self.held[model]
                    must(held.status is Status.LOADED, f"{model} told to close while {held}")
                    must(held.closed_for is None, f"{model} told to close twice")
                    held.closed_for = wanted_by
                    self.queue.close(model)
                case Reopen(model):
                    self.held[model].closed_for = None
                    self._take(self.queue.open(model, self.habits.seats, self.now))
                case Hold():
                    pass
        return any(not isinstance(one, Hold) for one in steps)

    def _start(self, model: str, devices: tuple[int, ...], victims: set[str]) -> None:
        must(model not in self.held, f"{model} is loaded twice")
        profile = self.profile(model)
        self.starts += 1
        for name in sorted(victims):
            victim, theirs = self.held[name], self.profile(name)
            must(victim.status is Status.LOADED, f"{name} evicted while {victim.status}")
            must(not self.busy(name), f"{name} evicted while in use")
            must(HERE not in theirs.pinned_on, f"{name} evicted although pinned")
            must(theirs.residency_class <= profile.residency_class, f"{name} is of a higher class")
            self._leave(name, victim)
        status = step(step(Status.UNLOADED, Life.ASKED), Life.PLACED)
        held = Held(status, devices, profile.share_mb or 0, victims)
        self.held[model] = held
        self._begin_if_free(model, held)

    def _begin_if_free(self, model: str, held: Held) -> None:
        if held.begun or held.waits_for:
            return
        held.begun = True
        fate, took = self._random.random(), self._draw(self.habits.load_secs)
        if fate < self.habits.load_hangs:
            self._after(self.habits.load_limit_secs, lambda: self._given_up(model, held))
        elif fate < self.habits.load_hangs + self.habits.load_fails:
            self._after(took, lambda: self._failed(model, held))
        else:
            held.load_secs = took
            self._after(took, lambda: self._up(model, held))

    def _up(self, model: str, held: Held) -> None:
        held.status = step(held.status, Life.UP)
        held.loaded_at = self.now
        self._take(self.queue.open(model, self.habits.seats, self.now))

    def _failed(self, model: str, held: Held) -> None:
        held.status = step(held.status, Life.FAILED)
        self._end(model, "failed", seated=False)
        self.disturbances += 1
        self._gone(model)

    def _given_up(self, model: str, held: Held) -> None:
        self._end(model, "failed", seated=False)
        self.disturbances += 1
        self._leave(model, held)

    def _leave(self, model: str, held: Held) -> None:
        held.status = step(held.status, Life.LEAVE)
        held.closed_for = None
        self.queue.shut(model)
        self._after(self._draw(self.habits.unload_secs), lambda: self._gone(model))

    def _gone(self, model: str) -> None:
        del self.held[model]
        for other, held in self.held.items():
            held.waits_for.discard(model)
            self._begin_if_free(other, held)

    def _reborn(self) -> None:
        self.alive = True

    def _take(self, outcomes: tuple[Outcome, ...]) -> None:
        for outcome in outcomes:
            match outcome:
                case Admitted(ticket):
                    held = self.held[ticket.model]
                    held.last_used = self.now
                    request = self._open[ticket.id]
                    request.seated = True
                    self.on_seat(self.time - request.came)
                    self._after(request.service_secs, self._served(ticket))
                case Refused(ticket, code):
                    self._finish(ticket.id, code)
                case _:
                    pass

    def _served(self, ticket: Ticket) -> Callable[[], None]:
        def end() -> None:
            if ticket.id in self._open:
                self._finish(ticket.id, "served")
                self.held[ticket.model].last_used = self.now
                self._take(self.queue.end(ticket.id, self.now))

        return end

    def _finish(self, request: str, outcome: str) -> None:
        must(request in self._open, f"{request} has two outcomes")
        del self._open[request]
        self.outcomes[outcome] += 1

    def _end(self, model: str, outcome: str, *, seated: bool) -> None:
        """Give all requests of a model that have a seat, or all that have none, an outcome."""
        for request in [
            name
            for name, one in self._open.items()
            if one.ticket.model == model and one.seated == seated
        ]:
            self._finish(request, outcome)
            self._take(self.queue.cancel(request, self.now))

    def _due(self) -> float | None:
        times = [self.agenda[0][0]] if self.agenda else []
        if self.look_at is not None:
            times.append(self.look_at - self.clock_ahead + TIMER_LATE_SECS)
        return min(times, default=None)

    def _after(self, secs: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (self.time + secs, next(self._number), what))

    def _draw(self, span: tuple[float, float]) -> float:
        return self._random.uniform(*span)

    def busy(self, model: str) -> bool:
        """Tell whether somebody is served by a model or waits for a seat."""
        return self.queue.in_flight(model) + self.queue.queued(model) > 0

    def profile(self, model: str) -> Profile:
        """Return what the catalogue says, or a guess for a model no longer in it."""
        return self.catalogue.get(model) or Profile(id=model, size_mb=1)

    def _hopeless(self, profile: Profile) -> bool:
        placement = place(self.picture(), profile, self.catalogue, Rules(), self.now)
        return isinstance(placement, NoFit) and not placement.ever

    def _empty_queue(self) -> FairQueue:
        return FairQueue(
            max_waiting=self.habits.max_waiting, max_per_principal=self.habits.max_per_principal
        )
