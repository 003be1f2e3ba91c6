"""The fleet as one immutable picture, and the only way to make the next one: `apply`.

Nothing here is a clock or a connection: whoever observes nodes turns what they said into events,
and so does whoever sends requests. What a change costs depends on what changed (a node's own
replicas, one request), not on how large the fleet is. What is made anew for every event is a named
tuple: those take a third of a frozen dataclass's time to make.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias, TypeVar

from cortex_router.aliases import resolve
from cortex_router.circuit import CLOSED, Circuit
from cortex_router.lifecycle import ARRIVING, Status
from cortex_router.nodes import Node, Profile, Replica
from cortex_router.persistent import PersistentMap
from cortex_router.ranking import Holding, Rank, rank_of
from cortex_router.sessions import Count, Home, Sessions

_EMPTY: Mapping[str, Any] = MappingProxyType({})
#: The memory of how often a model is asked for halves in this time.
DEMAND_HALF_LIFE_SECS = 600.0
_NOBODY = Holding()
_Known = TypeVar("_Known")


class Entry(NamedTuple):
    """One node in the view: its last word, and what we did since, by model.

    `generation` is that of the conversations which its ranks were last worked out with.
    """

    node: Node
    sent: Mapping[str, int] = _EMPTY
    conversations: Mapping[str, Count] = _EMPTY
    circuits: Mapping[str, Circuit] = _EMPTY
    ranks: Mapping[str, Rank] = _EMPTY
    generation: int = 0

    def load(self, replica: Replica) -> int:
        """Return who is served or waits: what the node says, or what we sent, if that is more."""
        told, sent = replica.in_flight + replica.queued, self.sent.get(replica.model, 0)
        return max(told, sent)


class Demand(NamedTuple):
    """How many requests there were lately; older ones count less and less."""

    requests: float
    at: float

    def now(self, now: float) -> float:
        """Return the count at `now`."""
        return float(self.requests * 0.5 ** (max(0.0, now - self.at) / DEMAND_HALF_LIFE_SECS))

    def per_sec(self, now: float) -> float:
        """Return requests per second: a steady stream settles at count x ln 2 / half-life."""
        return self.now(now) * 0.6931 / DEMAND_HALF_LIFE_SECS


class FleetView(NamedTuple):
    """Everything a decision may look at. Made from nothing and `apply`, or by `fleet_view`."""

    entries: PersistentMap[str, Entry] = PersistentMap()
    holdings: PersistentMap[str, Holding] = PersistentMap()
    profiles: Mapping[str, Profile] = _EMPTY
    aliases: Mapping[str, str] = _EMPTY
    sessions: Sessions = Sessions()
    demand: PersistentMap[str, Demand] = PersistentMap()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node with our own requests counted in, sorted by name."""
        return tuple(current(self.entries[name]) for name in sorted(self.entries))

    def resolve(self, name: str) -> str:
        """Return the model that `name` stands for: an alias's target, else `name` itself."""
        return resolve(self.aliases, name, self.knows)

    def knows(self, model: str) -> bool:
        """Tell whether the catalogue or some node has the model."""
        held = self.holding(model)
        return model in self.profiles or bool(held.ready or held.idle or held.arriving)

    def node(self, name: str) -> Node | None:
        """Return the node called `name`, our own requests counted in."""
        entry = self.entries.get(name)
        return None if entry is None else current(entry)

    def holding(self, model: str) -> Holding:
        """Return who knows `model`."""
        return self.holdings.get(model) or _NOBODY

    def profile(self, model: str) -> Profile | None:
        """Return the catalogue's profile, else one for a model that some node has files of."""
        if (listed := self.profiles.get(model)) is not None:
            return listed
        if not (names := self.holding(model).names):
            return None
        held = [self.entries[name].node.by_model[model] for name in names]
        sizes = [replica.required_mb for replica in held if replica.required_mb is not None]
        return Profile(
            id=model, size_mb=max(sizes, default=None), only_on=tuple(sorted(set(names)))
        )

    def wanted(self, now: float) -> Callable[[str], float | None]:
        """Return how often a model was asked for lately, per second; None for one never seen."""

        def per_sec(model: str) -> float | None:
            demand = self.demand.get(model)
            return None if demand is None else demand.per_sec(now)

        return per_sec


@dataclass(frozen=True, slots=True)
class NodeObserved:
    """A node said how it is."""

    node: Node


@dataclass(frozen=True, slots=True)
class NodeLost:
    """A node missed too many polls. What it held stays known, so that requests wait for it."""

    name: str


@dataclass(frozen=True, slots=True)
class NodeForgotten:
    """A node left the configuration."""

    name: str


@dataclass(frozen=True, slots=True)
class CatalogueChanged:
    """The operator's catalogue was read again."""

    profiles: Mapping[str, Profile]
    aliases: Mapping[str, str]


class RequestSent(NamedTuple):
    """We sent a request of `tokens` to a replica. `session` tells conversations apart."""

    node: str
    model: str
    at: float
    session: str | None = None
    tokens: int = 0


class RequestEnded(NamedTuple):
    """It ended. `failed`: by the replica's own fault; None when it says nothing about it."""

    node: str
    model: str
    at: float
    failed: bool | None = False


Event: TypeAlias = (
    NodeObserved | NodeLost | NodeForgotten | CatalogueChanged | RequestSent | RequestEnded
)


def fleet_view(
    nodes: tuple[Node, ...] = (),
    profiles: Mapping[str, Profile] | None = None,
    aliases: Mapping[str, str] | None = None,
) -> FleetView:
    """Return the view of these nodes and this catalogue."""
    view = apply(FleetView(), CatalogueChanged(profiles or {}, aliases or {}))
    for node in nodes:
        view = apply(view, NodeObserved(node))
    return view


def apply(view: FleetView, event: Event) -> FleetView:
    """Return the view after `event`."""
    match event:
        case RequestSent():
            return _sent(view, *event)
        case RequestEnded():
            return _ended(view, *event)
        case NodeObserved(node):
            return _observed(view, node)
        case NodeLost(name):
            entry = view.entries.get(name)
            if entry is None or not entry.node.healthy:
                return view
            return _observed(view, replace(entry.node, healthy=False))
        case NodeForgotten(name):
            entry = view.entries.get(name)
            if entry is None:
                return view
            bare = _observed(view, replace(entry.node, replicas=()))
            return _with(bare, entries=bare.entries.without(name))
        case CatalogueChanged(profiles, aliases):
            return view._replace(
                profiles=MappingProxyType(dict(profiles)),
                aliases=MappingProxyType(dict(aliases)),
            )


def current(entry: Entry) -> Node:
    """Return the node with our own requests, where they are more than it has told, counted in."""
    sent = entry.sent
    if not sent:
        return entry.node
    return replace(
        entry.node,
        replicas=tuple(
            replace(r, in_flight=max(r.in_flight, sent[r.model] - r.queued))
            if r.model in sent
            else r
            for r in entry.node.replicas
        ),
    )


def _with(
    view: FleetView,
    *,
    entries: PersistentMap[str, Entry] | None = None,
    holdings: PersistentMap[str, Holding] | None = None,
    sessions: Sessions | None = None,
    demand: PersistentMap[str, Demand] | None = None,
) -> FleetView:
    """Return the view with these parts; cheaper than `replace`, on the path of every request."""
    return FleetView(
        view.entries if entries is None else entries,
        view.holdings if holdings is None else holdings,
        view.profiles,
        view.aliases,
        view.sessions if sessions is None else sessions,
        view.demand if demand is None else demand,
    )


def _observed(view: FleetView, node: Node) -> FleetView:
    before = view.entries.get(node.name) or Entry(Node(name=node.name))
    old, new, usable = before.node.by_model, node.by_model, node.usable
    generation = view.sessions.generation
    left = [] if old.keys() == new.keys() else [model for model in old if model not in new]
    # What is as it was keeps its place, unless the node's state or time has changed what it means.
    if usable == before.node.usable and generation == before.generation:
        changed = [m for m, r in new.items() if (was := old.get(m)) is not r and was != r]
    else:
        changed = list(new)
    changed += left
    ranks = {**before.ranks}
    entry = Entry(
        node,
        before.sent,
        _without(before.conversations, left) if left else before.conversations,
        _without(before.circuits, left) if left else before.circuits,
        ranks,
        generation,
    )
    holdings = view.holdings
    for model in changed:
        held = new.get(model)
        ready = held is not None and usable and held.ready
        rank_before, rank = ranks.pop(model, None), None
        if held is not None and ready:
            rank = ranks[model] = _rank(entry, held, generation)
        holding = moved = holdings.get(model) or _NOBODY
        if rank_before != rank:
            moved = holding.ranked(node.name, rank_before, rank)
        if rank_before is None or rank is None:
            arriving = held is not None and not ready and usable and _arriving(held)
            idle = held is not None and not ready and not arriving
            moved = moved.placed(node.name, arriving=arriving, idle=idle)
        if moved is not holding:
            empty = not (moved.ready or moved.arriving or moved.idle)
            holdings = holdings.without(model) if empty else holdings.set(model, moved)
    return _with(view, entries=view.entries.set(node.name, entry), holdings=holdings)


def _without(known: Mapping[str, _Known], models: list[str]) -> Mapping[str, _Known]:
    return {model: one for model, one in known.items() if model not in models}


def _arriving(replica: Replica) -> bool:
    return replica.status in ARRIVING or replica.status is Status.LOADED


def _rank(entry: Entry, replica: Replica, generation: int) -> Rank:
    if (count := entry.conversations.get(replica.model)) is None:
        return rank_of(replica, entry.load(replica), 0)
    if count.generation != generation:
        count = count.at(generation)
    return rank_of(replica, entry.load(replica), count.young + count.old)


def _sent(
    view: FleetView, node: str, model: str, at: float, session: str | None, tokens: int
) -> FleetView:
    demand = view.demand.get(model)
    demands = view.demand.set(model, Demand((demand.now(at) if demand else 0.0) + 1.0, at))
    entry = view.entries.get(node)
    if entry is None:
        return _with(view, demand=demands)
    sessions, conversations = view.sessions, entry.conversations
    entries = view.entries
    holdings = view.holdings
    if session is not None:
        sessions = sessions.at(at)
        fresh = sessions.young.get((model, session))
        before = fresh or sessions.old.get((model, session))
        if fresh is None or fresh.node != node:
            if before is not None and (left := entries.get(before.node)) is not None:
                was_young = fresh is not None
                fewer = _counted(
                    left.conversations, model, sessions.generation, -1, young=was_young
                )
                if before.node == node:
                    conversations = fewer
                else:
                    entries, holdings = _reranked(
                        entries,
                        holdings,
                        Entry(
                            left.node,
                            left.sent,
                            fewer,
                            left.circuits,
                            left.ranks,
                            left.generation,
                        ),
                        model,
                        sessions.generation,
                    )
            conversations = _counted(conversations, model, sessions.generation, 1, young=True)
        home = Home(node, tokens)
        if fresh != home:
            sessions = sessions.moved_to(model, session, home)
    circuits = entry.circuits
    if (circuit := circuits.get(model)) is not None:
        circuits = {**circuits, model: circuit.sent(at)}
    sent = {**entry.sent, model: entry.sent.get(model, 0) + 1}
    changed = Entry(entry.node, sent, conversations, circuits, entry.ranks, entry.generation)
    entries, holdings = _reranked(entries, holdings, changed, model, sessions.generation)
    return FleetView(entries, holdings, view.profiles, view.aliases, sessions, demands)


def _counted(
    counts: Mapping[str, Count],
    model: str,
    generation: int,
    by: int,
    *,
    young: bool,
) -> Mapping[str, Count]:
    count = (counts.get(model) or Count(generation)).at(generation)
    more = (
        Count(generation, max(0, count.young + by), count.old)
        if young
        else Count(generation, count.young, max(0, count.old + by))
    )
    return {**counts, model: more}


def _ended(
    view: FleetView,
    node: str,
    model: str,
    at: float,
    failed: bool | None,  # noqa: FBT001
) -> FleetView:
    entry = view.entries.get(node)
    if entry is None:
        return view
    sent = dict(entry.sent)
    if (left := sent.pop(model, 0) - 1) > 0:
        sent[model] = left
    circuits = entry.circuits
    circuit = circuits.get(model)
    if failed:
        circuits = {**circuits, model: (circuit or CLOSED).failed(at)}
    elif circuit is not None:
        after = circuit.abandoned() if failed is None else circuit.succeeded()
        circuits = {**circuits, model: after}
    changed = Entry(entry.node, sent, entry.conversations, circuits, entry.ranks, entry.generation)
    entries, holdings = _reranked(
        view.entries, view.holdings, changed, model, view.sessions.generation
    )
    return FleetView(entries, holdings, view.profiles, view.aliases, view.sessions, view.demand)


def _reranked(
    entries: PersistentMap[str, Entry],
    holdings: PersistentMap[str, Holding],
    entry: Entry,
    model: str,
    generation: int,
) -> tuple[PersistentMap[str, Entry], PersistentMap[str, Holding]]:
    """Return the maps with `entry`, its replica of `model` at its place in the order."""
    name = entry.node.name
    before = entry.ranks.get(model)
    if before is not None:
        after = _rank(entry, entry.node.by_model[model], generation)
        if after != before:
            holding = holdings[model].ranked(name, before, after)
            holdings = holdings.set(model, holding)
            entry = Entry(
                entry.node,
                entry.sent,
                entry.conversations,
                entry.circuits,
                {**entry.ranks, model: after},
                entry.generation,
            )
    return entries.set(name, entry), holdings
