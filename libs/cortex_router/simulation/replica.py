"""One simulated model on one simulated node: seats, queue, and what it remembers."""

from collections import OrderedDict, deque
from dataclasses import replace

from cortex_router.decision import RouteRequest
from cortex_router.lifecycle import Life, Status, step
from cortex_router.nodes import Replica
from cortex_router.simulation.arrivals import Arrival
from cortex_router.simulation.machines import Machine, Model


class Request:
    """One arrival on its way. `attempt` tells an answer from one that was cut off."""

    __slots__ = ("arrival", "attempt", "first_token_at", "node", "route", "seated_at")

    def __init__(self, arrival: Arrival) -> None:
        self.arrival = arrival
        self.attempt = 0
        self.node: str | None = None
        self.seated_at = 0.0
        self.first_token_at = 0.0
        self.route = RouteRequest(
            model=arrival.model, session=arrival.session, tokens=arrival.prompt_tokens
        )


class SimReplica:
    """A model from the moment its load is asked for until it has gone."""

    __slots__ = (
        "_memory",
        "_memory_tokens",
        "_shared_tokens",
        "_told",
        "answered",
        "closed_for",
        "devices",
        "last_used",
        "load_secs",
        "loaded_at",
        "machine",
        "model",
        "queue",
        "running",
        "share_mb",
        "since",
        "status",
    )

    def __init__(self, machine: Machine, model: Model, since: float) -> None:
        self.machine, self.model, self.since = machine, model, since
        self.status = Status.QUEUED
        self.devices: tuple[int, ...] = ()
        self.share_mb = 0
        self.running: dict[Request, None] = {}
        self.queue: deque[Request] = deque()
        self.last_used: float | None = None
        self.loaded_at: float | None = None
        self.load_secs: float | None = None
        self.closed_for: str | None = None
        self.answered = False
        self._memory: OrderedDict[str, int] = OrderedDict()
        self._memory_tokens = 0
        self._shared_tokens = 0
        self._told: Replica | None = None

    @property
    def name(self) -> str:
        """The model's id."""
        return self.model.profile.id

    def goes_through(self, event: Life) -> None:
        """Take a step in its life."""
        self.status = step(self.status, event)
        self._told = None

    def closes(self, wanted_by: str | None) -> None:
        """Take no new requests, to make way; or, with None, take them again."""
        self.closed_for = wanted_by
        self._told = None

    def seat(self, request: Request, now: float) -> float:
        """Begin to answer; return when the answer is complete."""
        machine, arrival, speed = self.machine, request.arrival, self.model.speed
        unread = arrival.prompt_tokens - self._remembered(arrival)
        request.seated_at = now
        request.first_token_at = now + unread / (machine.prefill_tok_s * speed)
        self.running[request] = None
        self._told = None
        return request.first_token_at + arrival.completion_tokens / (machine.decode_tok_s * speed)

    def enqueue(self, request: Request) -> None:
        """Let a request wait for a seat."""
        self.queue.append(request)
        self._told = None

    def ended(self, request: Request, now: float) -> None:
        """Give the seat back, and remember the conversation."""
        del self.running[request]
        self.last_used, self.answered = now, True
        self._told = None
        arrival = request.arrival
        self._shared_tokens = max(self._shared_tokens, arrival.shared_tokens)
        if arrival.session is None:
            return
        size = arrival.prompt_tokens + arrival.completion_tokens
        self._memory_tokens += size - self._memory.pop(arrival.session, 0)
        self._memory[arrival.session] = size
        while self._memory_tokens > self.machine.cache_tokens and len(self._memory) > 1:
            self._memory_tokens -= self._memory.popitem(last=False)[1]

    def told(self) -> Replica:
        """Return the replica as its node knows it."""
        if self._told is None:
            machine, speed = self.machine, self.model.speed
            placed = bool(self.devices)
            self._told = Replica(
                model=self.model.profile.id,
                status=self.status,
                devices=self.devices,
                used_mb=self.share_mb * len(self.devices) if placed else None,
                required_mb=self.model.profile.size_mb,
                in_flight=len(self.running),
                queued=len(self.queue),
                max_in_flight=machine.seats,
                last_used=self.last_used,
                loaded_at=self.loaded_at,
                load_secs=self.load_secs,
                tok_s_prefill=machine.prefill_tok_s * speed if self.answered else None,
                tok_s_decode=machine.decode_tok_s * speed if self.answered else None,
            )
        return self._told

    def shown(self) -> Replica:
        """Return what others are told: one that makes way is leaving, though it still serves."""
        told = self._told or self.told()
        if self.closed_for is None or self.status is not Status.LOADED:
            return told
        return replace(told, status=Status.UNLOADING)

    def _remembered(self, arrival: Arrival) -> int:
        known = min(self._shared_tokens, arrival.shared_tokens)
        if arrival.session is not None:
            known = max(known, self._memory.get(arrival.session, 0))
        return min(known, arrival.prompt_tokens)
