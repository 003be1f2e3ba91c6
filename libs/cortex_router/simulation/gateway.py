"""The simulated gateway: takes requests to replicas as the real one does.

It decides, acts, waits, and decides again when the view of what it waits for has changed. Requests
that wait for the same model hear the same, so one of them asks; once it is served, the next does.
"""

from collections.abc import Mapping, Sequence

from cortex_router.decide import another_copy, decide
from cortex_router.decision import Await, Decision, Load, Refuse, Serve
from cortex_router.policy import Policy
from cortex_router.simulation.agenda import Agenda
from cortex_router.simulation.arrivals import Arrival
from cortex_router.simulation.machines import Fleet
from cortex_router.simulation.node import SimNode
from cortex_router.simulation.replica import Request
from cortex_router.simulation.results import Recorder, Why
from cortex_router.view import (
    FleetView,
    NodeLost,
    NodeObserved,
    RequestEnded,
    RequestSent,
    apply,
)

#: Another copy of a model is thought about no more often than this.
ANOTHER_SECS = 1.0
MAX_ATTEMPTS = 3


class Gateway:
    """Everything between a client and a node."""

    def __init__(
        self, view: FleetView, fleet: Fleet, policy: Policy, agenda: Agenda, recorder: Recorder
    ) -> None:
        self.view = view
        self.nodes: Mapping[str, SimNode] = {}
        self._fleet, self._policy = fleet, policy
        self._agenda, self._recorder = agenda, recorder
        self._waiting: dict[str, dict[Request, float]] = {}
        self._crowded: dict[str, None] = {}
        self._stirred: dict[str, None] = {}
        self._copied_at: dict[str, float] = {}

    def arrive(self, request: Request) -> None:
        """Take a new request."""
        self._recorder.arrivals += 1
        model = self.view.resolve(request.arrival.model)
        if model in self._crowded:
            self._wait(model, request)  # as crowded as a moment ago
            return
        self._act(request, self._decide(request))

    def settle(self) -> None:
        """Let those decide again who wait for what has changed."""
        while self._stirred:
            model = next(iter(self._stirred))
            del self._stirred[model]
            self._crowded.pop(model, None)
            for request in list(self._waiting.get(model, ())):
                if request not in self._waiting.get(model, ()):
                    continue
                if not self._act(request, self._decide(request)) and not request.route.avoid:
                    break

    # --- what nodes say

    def observed(self, node: SimNode, moved: Sequence[str] | None) -> None:
        """Take in how a node is, and the models that took a step; None when only numbers moved."""
        event = NodeObserved(node.picture()) if node.alive else NodeLost(node.name)
        self.view = apply(self.view, event)
        if moved is not None:
            self._stir(moved)

    def answered(self, request: Request, first_token_at: float) -> None:
        """Take in that an answer is complete."""
        node, now, arrival = request.node, self._agenda.now, request.arrival
        assert node is not None  # noqa: S101  # sent
        self.view = apply(self.view, RequestEnded(node=node, model=arrival.model, at=now))
        self._recorder.answered(
            node,
            now,
            first_token_at - arrival.at,
            request.seated_at - arrival.at,
            now - request.seated_at,
        )
        if (following := arrival.follow_up(now)) is not None:
            self._agenda.enter(following.at, self._follow, following)

    def cut_off(self, request: Request) -> None:
        """Take in that a node died; before the first token another one is asked."""
        node, now = request.node, self._agenda.now
        assert node is not None  # noqa: S101  # sent
        ended = RequestEnded(node=node, model=request.arrival.model, at=now, failed=True)
        self.view = apply(self.view, ended)
        begun = request.seated_at > 0 and request.first_token_at <= now
        request.attempt += 1
        if begun or request.attempt >= MAX_ATTEMPTS:
            self._recorder.unanswered(Why.LOST, now)
            return
        self._again(request, node)

    def demand(self, model: str) -> tuple[int, float] | None:
        """Return how many wait for a model and since when, None when nobody does."""
        waiting = self._waiting.get(model)
        return (len(waiting), next(iter(waiting)).arrival.at) if waiting else None

    # --- one request

    def _follow(self, arrival: Arrival) -> None:
        self.arrive(Request(arrival))

    def _decide(self, request: Request) -> Decision:
        return decide(self.view, request.route, self._policy, self._agenda.now)

    def _act(self, request: Request, decision: Decision) -> bool:
        """Act on a decision; tell whether the request has left the gateway."""
        match decision:
            case Serve():
                self._forget(decision.model, request)
                self._send(request, decision)
                return True
            case Refuse():
                self._forget(self.view.resolve(request.arrival.model), request)
                self._recorder.unanswered(Why.REFUSED, self._agenda.now)
                return True
            case Load():
                self._wait(decision.model, request)
                self.nodes[decision.node].want(decision.model)
            case Await(model=model, reason=reason):
                self._wait(model, request)
                if reason == "no_room" and not request.route.avoid:
                    self._crowded[model] = None
        return False

    def _send(self, request: Request, serve: Serve) -> None:
        now, arrival, node = self._agenda.now, request.arrival, serve.node
        request.node = node
        request.seated_at = 0.0
        self.view = apply(
            self.view,
            RequestSent(
                node=node,
                model=serve.model,
                at=now,
                session=arrival.session,
                tokens=arrival.prompt_tokens,
            ),
        )
        if not self.nodes[node].take(request):
            ended = RequestEnded(node=node, model=serve.model, at=now, failed=None)
            self.view = apply(self.view, ended)
            request.attempt += 1
            if request.attempt < MAX_ATTEMPTS:
                self._again(request, node)
            else:
                self._recorder.unanswered(Why.REFUSED, self._agenda.now)
            return
        if arrival.session is not None:
            self._recorder.turn(arrival.session, node)
        if serve.saturated:
            self._copy(serve.model)

    def _again(self, request: Request, avoid: str) -> None:
        request.route = request.route._replace(avoid=request.route.avoid | {avoid})
        self._act(request, self._decide(request))

    def _copy(self, model: str) -> None:
        """Have another copy loaded where there is room, if that has not just been looked at."""
        now = self._agenda.now
        if now - self._copied_at.get(model, -ANOTHER_SECS) < ANOTHER_SECS:
            return
        self._copied_at[model] = now
        load = another_copy(self.view, model, self._policy, now)
        if load is not None:
            self.nodes[load.node].want(model)

    # --- those who wait

    def _wait(self, model: str, request: Request) -> None:
        waiting = self._waiting.setdefault(model, {})
        if request in waiting:
            return
        now = self._agenda.now
        waiting[request] = now
        self._agenda.enter(now + self._fleet.hold_secs, self._held_long, (model, request, now))

    def _forget(self, model: str, request: Request) -> None:
        waiting = self._waiting.get(model)
        if waiting is not None and waiting.pop(request, None) is not None and not waiting:
            del self._waiting[model]

    def _held_long(self, what: tuple[str, Request, float]) -> None:
        """Give up when nothing is on its way, else when the load takes too long."""
        model, request, since = what
        now = self._agenda.now
        if self._waiting.get(model, {}).get(request) != since:
            return
        patience = self._fleet.hold_secs if model in self._crowded else self._fleet.load_wait_secs
        if now - since < patience:
            again = max(now + self._fleet.hold_secs, since + patience)
            self._agenda.enter(again, self._held_long, what)
            return
        self._forget(model, request)
        self._recorder.unanswered(Why.GAVE_UP, now)

    def _stir(self, moved: Sequence[str]) -> None:
        for model in (*moved, *self._crowded):
            if model in self._waiting:
                self._stirred[model] = None
