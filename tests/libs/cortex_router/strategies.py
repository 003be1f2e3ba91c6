"""One hypothesis strategy per noun of the router. Numbers are small, so that they collide."""

from dataclasses import replace

from hypothesis import strategies as st

from cortex_router import (
    STRATEGIES,
    CatalogueChanged,
    Device,
    Event,
    FleetView,
    Node,
    NodeForgotten,
    NodeLost,
    NodeObserved,
    Policy,
    Profile,
    Replica,
    RequestEnded,
    RequestSent,
    RouteRequest,
    Rules,
    Serving,
    Status,
    apply,
    fleet_view,
)

NODES = ("n0", "n1", "n2", "n3")
MODELS = ("a", "b", "c", "d", "e")
SESSIONS = ("s0", "s1", "s2")
#: After some of the moments below, at one, and before others.
NOW = 100.0

node_names = st.sampled_from(NODES)
models = st.sampled_from(MODELS)
sizes_mb = st.one_of(st.none(), st.integers(0, 12))
moments = st.one_of(st.none(), st.sampled_from([-5.0, 0.0, 50.0, 95.0, 99.0, 100.0, 120.0]))
names_of_nodes = st.lists(node_names, max_size=2, unique=True).map(tuple)
#: Mostly none: a rule that is always there hides the others.
few_nodes = st.one_of(st.just(()), st.just(()), names_of_nodes)
few_models = st.one_of(st.just(()), st.just(()), st.lists(models, max_size=2).map(tuple))


def devices(index: int) -> st.SearchStrategy[Device]:
    """A device, mostly one that tells what it has."""
    return st.builds(
        Device,
        index=st.just(index),
        total_mb=st.sampled_from([None, 6, 8, 8, 12]),
        free_mb=st.one_of(st.none(), st.integers(0, 8), st.integers(0, 8), st.integers(0, 8)),
        reserved_mb=st.sampled_from([0, 0, 0, 2]),
    )


device_lists = st.integers(0, 3).flatmap(lambda n: st.tuples(*(devices(i) for i in range(n))))

replicas = st.builds(
    Replica,
    model=models,
    status=st.one_of(st.just(Status.LOADED), st.sampled_from(Status)),
    devices=st.sampled_from([(0,), (0,), (1,), (2,), (0, 1), (1, 2), ()]),
    used_mb=st.one_of(st.none(), st.integers(0, 8), st.integers(0, 8)),
    required_mb=sizes_mb,
    in_flight=st.sampled_from([0, 0, 0, 1, 2, 5]),
    queued=st.sampled_from([0, 0, 0, 1]),
    max_in_flight=st.sampled_from([None, 0, 1, 2, 4]),
    last_used=moments,
    loaded_at=moments,
    load_secs=st.sampled_from([None, 1.0, 8.0]),
    eta_secs=st.sampled_from([None, None, 3.0]),
    tok_s_prefill=st.sampled_from([None, 10.0, 1000.0]),
    tok_s_decode=st.sampled_from([None, 10.0, 40.0]),
    servable=st.sampled_from([True, True, True, False]),
)


def nodes(names: st.SearchStrategy[str] = node_names) -> st.SearchStrategy[Node]:
    """A node, mostly one that works; now and then it names a model twice."""
    return st.builds(
        Node,
        name=names,
        healthy=st.sampled_from([True, True, True, False]),
        draining=st.sampled_from([False, False, False, True]),
        harnesses=st.sampled_from([None, None, ("llamacpp",), ("exllamav2",)]),
        devices=device_lists,
        replicas=st.lists(replicas, max_size=5).map(tuple),
    )


def profiles(names: st.SearchStrategy[str] = models) -> st.SearchStrategy[Profile]:
    """A profile, mostly without a rule of its own."""
    return st.builds(
        Profile,
        id=names,
        harness=st.sampled_from([None, None, None, "llamacpp"]),
        size_mb=sizes_mb,
        min_devices=st.sampled_from([1, 1, 1, 2, 3]),
        min_device_mb=st.sampled_from([None, None, None, 8]),
        pinned_on=few_nodes,
        only_on=few_nodes,
        preferred_on=few_nodes,
        excluded_from=few_nodes,
        apart_from=few_models,
        priority=st.sampled_from([None, None, 100, 0, 200]),
    )


catalogues = st.dictionaries(models, profiles(), max_size=5).map(
    lambda found: {name: replace(profile, id=name) for name, profile in found.items()}
)
rules = st.builds(
    Rules,
    strategy=st.sampled_from(list(STRATEGIES.values())),
    min_residency_secs=st.sampled_from([0.0, 0.0, 10.0]),
)
policies = st.builds(
    Policy,
    rules=rules,
    serving=st.builds(
        Serving, affinity=st.booleans(), warm_up_secs=st.sampled_from([0.0, 10.0, 60.0])
    ),
)
requests = st.builds(
    RouteRequest,
    model=st.sampled_from([*MODELS, *MODELS, "alias", "nobody"]),
    avoid=few_nodes.map(frozenset),
    node=st.one_of(st.none(), st.none(), st.none(), node_names, st.just("nowhere")),
    session=st.one_of(st.none(), st.sampled_from(SESSIONS)),
    tokens=st.sampled_from([0, 10, 1000]),
)
catalogue_events = st.builds(CatalogueChanged, catalogues, st.just({"alias": "a"}))
#: From the first second to beyond two generations of sessions; not always forwards.
event_times = st.sampled_from([0.0, 1.0, 50.0, 99.0, 1000.0, 2000.0])
sent = st.builds(
    RequestSent,
    node=node_names,
    model=models,
    at=event_times,
    session=st.one_of(st.none(), st.sampled_from(SESSIONS)),
    tokens=st.sampled_from([0, 10, 1000]),
)
ended = st.builds(
    RequestEnded,
    node=node_names,
    model=models,
    at=event_times,
    failed=st.sampled_from([False, True, None]),
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(NodeObserved, nodes()),
    sent,
    ended,
    st.builds(NodeLost, node_names),
    st.builds(NodeForgotten, node_names),
    catalogue_events,
)
histories = st.lists(events, max_size=12)


def played(history: list[Event], start: FleetView | None = None) -> FleetView:
    """The view after these events."""
    view = start or FleetView()
    for event in history:
        view = apply(view, event)
    return view


@st.composite
def views(draw: st.DrawFn) -> FleetView:
    """A fleet that was seen once, and what happened since."""
    seen = draw(st.lists(nodes(), max_size=4, unique_by=lambda node: node.name))
    start = fleet_view(tuple(seen), draw(catalogues), {"alias": "a"})
    return played(draw(histories), start)
