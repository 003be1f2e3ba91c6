"""Which of several ready replicas gets a request.

1. a conversation stays where its cache is, unless the wait there is longer than elsewhere by more
   than it takes to read the conversation again and to write one answer;
2. otherwise the first in rank: a free seat before a queue, then fewest conversations against seats
   and speed, then the name;
3. passed over: nodes to avoid, open circuits, and replicas just loaded that already have their
   share for so young an age;
4. rather than nobody, one that was passed over for its age is asked, then one for its circuit.

That two conversations begin with the same long system prompt is no reason to put both on one node:
it would fill one machine and leave the other idle, for one reading of the prompt saved.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from cortex_router.circuit import CLOSED
from cortex_router.decision import RouteRequest
from cortex_router.nodes import Replica
from cortex_router.sessions import Home
from cortex_router.view import Entry, FleetView


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A ready replica as a ranking sees it.

    `load` is who is served or waits, `conversations` how many call it home, `cached_tokens` what it
    still knows of this conversation.
    """

    node: str
    replica: Replica
    load: int
    conversations: int
    cached_tokens: int


class Ranking(Protocol):
    """A user's own way to choose. Pure: the same arguments give the same answer."""

    def score(self, candidate: Candidate, request: RouteRequest, now: float) -> tuple[float, ...]:
        """Return a key; the lowest is asked, equals by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How to choose among replicas. `ranking` None: the order described above.

    `answer_tokens` is how long an answer is thought to be, `warm_up_secs` how long a replica just
    loaded is spared.
    """

    ranking: Ranking | None = None
    affinity: bool = True
    answer_tokens: int = 256
    warm_up_secs: float = 10.0


class Choice(NamedTuple):
    """The node, why, and whether everybody has a queue."""

    node: str
    reason: str
    saturated: bool


def choose(
    view: FleetView, model: str, request: RouteRequest, serving: Serving, now: float
) -> Choice | None:
    """Return the ready replica that gets the request; None when there is none."""
    if serving.ranking is not None:
        return _choose_by(serving.ranking, view, model, request, now)
    first: Entry | None = None
    warming: str | None = None
    broken: str | None = None
    saturated = True
    for entry, replica in ready(view, model, request):
        saturated = saturated and entry.load(replica) >= 2 * replica.seats
        passed = passed_over(entry, replica, serving, now)
        if passed is None:
            first = entry
            break
        if passed == "warming_up":
            warming = warming or entry.node.name
        else:
            broken = broken or entry.node.name
    if first is None:
        fallback = warming or broken
        return None if fallback is None else Choice(fallback, "last_resort", saturated)
    name = first.node.name
    if serving.affinity and request.session is not None:
        home = view.sessions.home(model, request.session)
        if home is not None and home.node == name:
            return Choice(name, "session", saturated)
        if home is not None and _stays(view, model, request, serving, now, home, first):
            return Choice(home.node, "session", saturated)
    return Choice(name, "loaded", saturated)


def ready(view: FleetView, model: str, request: RouteRequest) -> Iterator[tuple[Entry, Replica]]:
    """Return the ready replicas that the request may use, in rank order."""
    for _, name in view.holding(model).ready:
        if name in request.avoid or request.node not in (None, name):
            continue
        entry = view.entries[name]
        yield entry, entry.node.by_model[model]


def passed_over(entry: Entry, replica: Replica, serving: Serving, now: float) -> str | None:
    """Return why a ready replica is not asked now, None when it may be."""
    if not entry.circuits.get(replica.model, CLOSED).lets_through(now):
        return "circuit_open"
    if replica.loaded_at is not None and replica.seats > 1:
        age = (now - replica.loaded_at) / serving.warm_up_secs if serving.warm_up_secs else 1.0
        if 0.0 <= age < 1.0 and entry.load(replica) >= max(1, int(replica.seats * age)):
            return "warming_up"
    return None


def wait_secs(entry: Entry, replica: Replica, answer_tokens: int) -> float:
    """Return how long a newcomer waits for a seat: those ahead of it, a seat's pace at a time."""
    ahead = entry.load(replica) + 1 - replica.seats
    return max(0, ahead) * answer_tokens / (replica.decode_tok_s * replica.seats)


def _stays(
    view: FleetView,
    model: str,
    request: RouteRequest,
    serving: Serving,
    now: float,
    home: Home,
    other: Entry,
) -> bool:
    """Tell whether the conversation stays at home although `other` comes first in rank."""
    entry = view.entries.get(home.node)
    if entry is None or model not in entry.ranks:
        return False
    name = entry.node.name
    if name in request.avoid or request.node not in (None, name):
        return False
    replica, elsewhere = entry.node.by_model[model], other.node.by_model[model]
    if not entry.circuits.get(model, CLOSED).lets_through(now):
        return False
    saved = min(home.tokens, request.tokens) if request.tokens else home.tokens
    there = wait_secs(other, elsewhere, serving.answer_tokens) + saved / elsewhere.prefill_tok_s
    # Waits are guesses; rather one answer too many ahead than a conversation moved to and fro.
    one_answer = serving.answer_tokens / replica.decode_tok_s
    return wait_secs(entry, replica, serving.answer_tokens) <= there + one_answer


def _choose_by(
    ranking: Ranking, view: FleetView, model: str, request: RouteRequest, now: float
) -> Choice | None:
    scored: list[tuple[tuple[float, ...], str]] = []
    fallback: list[str] = []
    saturated = True
    for entry, replica in ready(view, model, request):
        saturated = saturated and entry.load(replica) >= 2 * replica.seats
        name = entry.node.name
        if entry.circuits.get(model, CLOSED).lets_through(now):
            scored.append(
                (ranking.score(candidate(view, entry, replica, request), request, now), name)
            )
        else:
            fallback.append(name)
    if not scored:
        return Choice(min(fallback), "last_resort", saturated) if fallback else None
    return Choice(min(scored)[1], "loaded", saturated)


def candidate(view: FleetView, entry: Entry, replica: Replica, request: RouteRequest) -> Candidate:
    """Return a ready replica as a ranking sees it."""
    count = entry.conversations.get(replica.model)
    home = view.sessions.home(replica.model, request.session) if request.session else None
    return Candidate(
        node=entry.node.name,
        replica=replica,
        load=entry.load(replica),
        conversations=count.at(view.sessions.generation).total if count else 0,
        cached_tokens=home.tokens if home is not None and home.node == entry.node.name else 0,
    )
