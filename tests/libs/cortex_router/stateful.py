"""What can happen to the node in miniature: the stateful model of queue and swap scheduling.

Every public method is an event, and `Checks` holds after each of them. What happens is decided by
whoever drives it: hypothesis in short, a seeded driver in long form.
"""

from collections.abc import Mapping
from dataclasses import replace
from heapq import heappop

from cortex_router import Life, Profile, Status, Ticket, step
from tests.libs.cortex_router.stateful_checks import HERE, Violation
from tests.libs.cortex_router.stateful_node import MiniatureNode, Request


class NodeModel(MiniatureNode):
    """The node, and all that can happen to it."""

    def request(
        self,
        principal: str,
        model: str,
        *,
        patience_secs: float | None = None,
        service_secs: float | None = None,
    ) -> None:
        """Somebody asks for a model."""
        self.requests += 1
        profile = self.catalogue.get(model)
        if not self.alive or self.draining or profile is None or self._hopeless(profile):
            self.outcomes["turned_away"] += 1
            return
        ticket = Ticket(
            id=f"r{next(self._number)}",
            model=model,
            principal=principal,
            since=self.now,
            deadline=None if patience_secs is None else self.now + patience_secs,
        )
        service = self._draw(self.habits.service_secs) if service_secs is None else service_secs
        self._open[ticket.id] = Request(ticket, self.time, service)
        self._take(self.queue.ask(ticket, self.now))
        self._settle()

    def cancel(self, request: str) -> None:
        """A client hangs up."""
        self._finish(request, "cancelled")
        self._take(self.queue.cancel(request, self.now))
        self._settle()

    def pass_time(self, secs: float) -> None:
        """Let everything happen that is due within so many seconds."""
        until = self.time + secs
        while (due := self._due()) is not None and due <= until:
            self.next_event()
        self.time = until
        self._settle()

    def next_event(self) -> bool:
        """Let the next thing happen that is due; False when there is none."""
        due = self._due()
        if due is None:
            return False
        self.time = max(self.time, due)
        if self.agenda and self.agenda[0][0] <= self.time:
            heappop(self.agenda)[2]()
        self._settle()
        return True

    def step_clock(self, secs: float) -> None:
        """Set the clock forward or back."""
        self.clock_ahead += secs
        self.disturbances += 1
        self._settle()

    def repin(self, model: str) -> None:
        """Pin a model here, or let it go."""
        if (profile := self.catalogue.get(model)) is not None:
            pinned = () if profile.pinned_on else (HERE,)
            self.reload({**self.catalogue, model: replace(profile, pinned_on=pinned)})

    def reload(self, catalogue: Mapping[str, Profile]) -> None:
        """Take in another catalogue; requests that it has no place for are turned away."""
        self.catalogue = dict(catalogue)
        self.disturbances += 1
        for model in self.queue.wanted():
            profile = self.catalogue.get(model)
            if profile is None or self._hopeless(profile):
                self._end(model, "turned_away", seated=False)
        self._settle()

    def drain(self, *, on: bool) -> None:
        """Take no new requests, or take them again."""
        self.draining = on
        self._settle()

    def unload(self, model: str) -> None:
        """The operator, or a keep-alive that is over, sends an idle model away."""
        held = self.held.get(model)
        if held is not None and held.status is Status.LOADED and not self.busy(model):
            self._leave(model, held)
            self._settle()

    def crash(self, model: str) -> None:
        """A model's engine dies and is started again."""
        held = self.held.get(model)
        if held is None or held.status is not Status.LOADED:
            return
        held.status = step(held.status, Life.CRASHED)
        held.closed_for = None
        self.queue.shut(model)
        self._end(model, "failed", seated=True)
        self.disturbances += 1
        self._after(self._draw(self.habits.load_secs), lambda: self._up(model, held))
        self._settle()

    def die(self, back_in_secs: float) -> None:
        """The machine goes down, and comes back with nothing."""
        if not self.alive:
            return
        self.alive = False
        for request in tuple(self._open):
            self._finish(request, "lost")
        self.held.clear()
        self.agenda.clear()
        self.holds.clear()
        self.disturbances += 1
        self.queue = self._empty_queue()
        self._after(back_in_secs, self._reborn)
        self._settle()

    def fail_loads(self, *, fails: float, hangs: float) -> None:
        """From now on this share of the loads fails, and that one hangs until it is given up."""
        self.habits = replace(self.habits, load_fails=fails, load_hangs=hangs)

    def let_everything_go(self) -> None:
        """Undo what keeps requests waiting, and run until nothing is left to happen."""
        self.fail_loads(fails=0.0, hangs=0.0)
        self.drain(on=False)
        free = {m: replace(p, pinned_on=(), priority=None) for m, p in self.catalogue.items()}
        self.reload(free)
        while self.next_event():
            pass
        if self._open:
            raise Violation(f"stuck for ever: {sorted(self._open)}, holds {self.holds}")
