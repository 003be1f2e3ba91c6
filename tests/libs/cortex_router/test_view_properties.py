"""The view's index is what the facts say, whatever happened in whatever order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_router import (
    Event,
    FleetView,
    NodeForgotten,
    NodeLost,
    NodeObserved,
    PersistentMap,
    RequestEnded,
    RequestSent,
    Status,
    apply,
)
from cortex_router.ranking import Holding, Rank, rank_of
from cortex_router.view import Entry
from tests.libs.cortex_router import strategies as fleet
from tests.libs.cortex_router.fleets import node, replica
from tests.libs.cortex_router.strategies import MODELS, NODES, SESSIONS, played

ON_THE_WAY = {Status.QUEUED, Status.LOADING, Status.RECOVERING, Status.UNLOADING, Status.LOADED}
#: Within one generation of sessions: a later one makes counts fade node by node.
soon = st.sampled_from([0.0, 1.0, 50.0])
same_generation = st.lists(
    st.one_of(
        st.builds(NodeObserved, fleet.nodes()),
        st.builds(lambda event, at: event._replace(at=at), fleet.sent, soon),
        st.builds(lambda event, at: event._replace(at=at), fleet.ended, soon),
        st.builds(NodeLost, fleet.node_names),
        st.builds(NodeForgotten, fleet.node_names),
        fleet.catalogue_events,
    ),
    max_size=20,
)


def as_dict(entries: PersistentMap[str, Entry]) -> dict[str, Entry]:
    """A map that can be compared."""
    return dict(entries.items())


def ranks_of(view: FleetView, entry: Entry) -> dict[str, Rank]:
    """The ranks of one node's ready replicas, from nothing but its facts."""
    found = {}
    for model, one in entry.node.by_model.items():
        count = entry.conversations.get(model)
        homes = count.at(view.sessions.generation).total if count else 0
        if entry.node.usable and one.status is Status.LOADED and one.servable:
            found[model] = rank_of(one, entry.load(one), homes)
    return found


def holdings_of(view: FleetView) -> dict[str, Holding]:
    """The whole index, from nothing but the facts."""
    found = {}
    for model in MODELS:
        ready, arriving, idle = [], [], []
        for name, entry in view.entries.items():
            one = entry.node.by_model.get(model)
            rank = ranks_of(view, entry).get(model)
            if rank is not None:
                ready.append((rank, name))
            elif one is not None and entry.node.usable and one.status in ON_THE_WAY:
                arriving.append(name)
            elif one is not None:
                idle.append(name)
        if ready or arriving or idle:
            found[model] = Holding(
                tuple(sorted(ready)), tuple(sorted(arriving)), tuple(sorted(idle))
            )
    return found


@given(same_generation)
def test_the_index_is_what_the_facts_say(history: list[Event]) -> None:
    """Who is ready in which rank, who arrives, who only has the files: after every event."""
    view = FleetView()
    for event in history:
        view = apply(view, event)

        assert dict(view.holdings.items()) == holdings_of(view)
        for entry in view.entries.values():
            assert dict(entry.ranks) == ranks_of(view, entry)


@given(fleet.histories)
def test_once_every_node_has_been_seen_again_the_index_is_right(history: list[Event]) -> None:
    """Ranks may be old while conversations fade; one round of observation mends that."""
    view = played(history)
    for entry in list(view.entries.values()):
        view = apply(view, NodeObserved(entry.node))

    assert dict(view.holdings.items()) == holdings_of(view)


@given(fleet.histories)
def test_ranks_that_are_old_are_still_kept_in_order(history: list[Event]) -> None:
    """A generation that ends leaves no replica out of the index, in it twice, or out of place."""
    view = played(history)

    for model, holding in view.holdings.items():
        assert list(holding.ready) == sorted(holding.ready)
        for rank, name in holding.ready:
            assert view.entries[name].ranks[model] == rank
        assert sorted(holding.names) == sorted(
            name for name, entry in view.entries.items() if model in entry.node.by_model
        )


@given(fleet.histories, fleet.nodes())
def test_seeing_a_node_twice_is_seeing_it_once(history: list[Event], seen: object) -> None:
    """Polls and events may tell the same thing."""
    once = played([*history, NodeObserved(seen)])  # type: ignore[arg-type]
    twice = apply(once, NodeObserved(seen))  # type: ignore[arg-type]

    assert as_dict(twice.entries) == as_dict(once.entries)
    assert dict(twice.holdings.items()) == dict(once.holdings.items())


@given(fleet.histories, fleet.node_names)
def test_a_forgotten_node_leaves_nothing_behind(history: list[Event], name: str) -> None:
    """Neither in the fleet nor among those who hold a model; seen again, it starts anew."""
    before = played(history)
    view = apply(before, NodeForgotten(name))

    assert name not in view.entries
    assert name not in {one for holding in view.holdings.values() for one in holding.names}
    again = apply(view, NodeObserved(node(name, replica("a"))))
    assert again.entries[name] == Entry(node(name, replica("a")), ranks=again.entries[name].ranks)
    assert again.entries[name].ranks == {"a": rank_of(replica("a"), 0, 0)}


@given(fleet.histories, fleet.events)
def test_an_event_changes_only_whom_it_is_about(history: list[Event], event: Event) -> None:
    """What other nodes are and did stays the very same, except for a conversation's old home."""
    before = played(history)
    after = apply(before, event)

    match event:
        case NodeObserved(node=seen):
            about = {seen.name}
        case NodeLost(name) | NodeForgotten(name):
            about = {name}
        case RequestSent() | RequestEnded():
            about = {event.node}
        case _:
            about = set()
    for name in set(NODES) - about:
        old, new = before.entries.get(name), after.entries.get(name)
        moved = isinstance(event, RequestSent) and event.session is not None
        if not moved:
            assert new is old
        elif old is not None and new is not None:
            assert (new.node, new.sent, new.circuits) == (old.node, old.sent, old.circuits)


@settings(max_examples=200)
@given(
    st.lists(
        st.builds(
            RequestSent,
            node=st.sampled_from(NODES[:3]),
            model=st.just("a"),
            at=st.integers(0, 30).map(lambda n: n * 100.0),
            session=st.sampled_from(SESSIONS),
        ),
        max_size=20,
    )
)
def test_conversations_are_counted_where_they_call_home(history: list[RequestSent]) -> None:
    """The count of a node is the number of homes that the memory of sessions says it is."""
    view = played([NodeObserved(node(name, replica("a"))) for name in NODES[:3]])
    for event in sorted(history, key=lambda one: one.at):
        view = apply(view, event)

        homes = [view.sessions.home("a", one) for one in SESSIONS]
        for name, entry in view.entries.items():
            count = entry.conversations.get("a")
            counted = count.at(view.sessions.generation).total if count else 0
            assert counted == sum(home is not None and home.node == name for home in homes)


@given(st.lists(st.one_of(fleet.sent, fleet.ended), max_size=20))
def test_what_was_sent_and_not_ended_counts_as_load(history: list[Event]) -> None:
    """Our own requests count before the node tells of them, and never below nobody."""
    view = played([NodeObserved(node(name, replica("a"))) for name in NODES])
    expected = dict.fromkeys(NODES, 0)
    for event in history:
        view = apply(view, event)
        if isinstance(event, RequestSent) and event.model == "a":
            expected[event.node] += 1
        elif isinstance(event, RequestEnded) and event.model == "a":
            expected[event.node] = max(0, expected[event.node] - 1)

    loads = {name: entry.load(entry.node.by_model["a"]) for name, entry in view.entries.items()}
    assert loads == expected
    assert {one.name: one.replicas[0].in_flight for one in view.nodes} == expected
