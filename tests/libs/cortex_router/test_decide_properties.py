"""What holds of every decision, whatever the fleet and whatever happened before."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cortex_router import (
    Await,
    CatalogueChanged,
    Decision,
    Event,
    Fit,
    FleetView,
    Load,
    Node,
    NodeObserved,
    NoFit,
    Policy,
    Profile,
    Refuse,
    Replica,
    RouteRequest,
    Serve,
    Status,
    another_copy,
    apply,
    decide,
    fleet_view,
    place,
)
from tests.libs.cortex_router import strategies as fleet
from tests.libs.cortex_router.fleets import device
from tests.libs.cortex_router.fleets import node as machine
from tests.libs.cortex_router.strategies import MODELS, NOW, played

ARRIVING = {"queued", "loading", "recovering", "unloading"}


def spelled(decision: Decision) -> str:
    """A decision with its whole account, for comparing."""
    return repr((decision, decision.explanation.considered))


def usable(node: Node, request: RouteRequest) -> bool:
    """Whether a request may go to a node at all."""
    well = node.healthy and not node.draining and node.name not in request.avoid
    return well and request.node in (None, node.name)


@given(fleet.views(), fleet.requests, fleet.policies)
def test_every_decision_is_a_sound_one(
    view: FleetView, request: RouteRequest, policy: Policy
) -> None:
    """Who is ready serves; else who arrives is awaited; only else something is loaded."""
    decision = decide(view, request, policy, NOW)

    model = view.resolve(request.model)
    held = {
        node.name: one
        for node in view.nodes
        if usable(node, request) and (one := node.holds(model)) is not None
    }
    ready = {n for n, one in held.items() if one.status is Status.LOADED and one.servable}
    arriving = {
        n
        for n, one in held.items()
        if one.status.value in ARRIVING or (one.status is Status.LOADED and not one.servable)
    }
    if ready:
        assert isinstance(decision, Serve)
        assert decision.node in ready
    elif arriving:
        assert isinstance(decision, Await)
        assert decision.node in arriving
    else:
        assert not isinstance(decision, Serve)
        assert not isinstance(decision, Await) or decision.reason == "no_room"


@given(fleet.views(), fleet.requests, fleet.policies)
def test_a_load_is_the_best_that_any_node_of_the_fleet_offers(
    view: FleetView, request: RouteRequest, policy: Policy
) -> None:
    """Every node is asked here; the decision must not do worse by asking fewer."""
    decision = decide(view, request, policy, NOW)
    if isinstance(decision, Serve) or (
        isinstance(decision, Await) and decision.reason != "no_room"
    ):
        return
    profile = view.profile(view.resolve(request.model))
    if profile is None:
        assert isinstance(decision, Refuse)
        return

    preferred = (*profile.pinned_on, *profile.preferred_on)
    offers = []
    for node in view.nodes:
        one = node.holds(profile.id)
        if not usable(node, request) or (one and one.status in {Status.FAILED, Status.UNKNOWN}):
            continue
        for once_idle in (False, True):
            fit = place(
                node,
                profile,
                view.profiles,
                policy.rules,
                NOW,
                once_idle=once_idle,
                wanted=view.wanted(NOW),
            )
            if isinstance(fit, Fit):
                group = 0 if once_idle else -2 if node.name in preferred else -1
                worth = (bool(fit.victims), fit.tier, fit.price, -fit.spare_mb)
                offers.append((group, *worth, node.name, fit))
                break
    if not offers:
        assert not isinstance(decision, Load)
        return
    *_, name, fit = min(offers, key=lambda one: one[:-1])
    assert isinstance(decision, Load)
    assert (decision.node, decision.devices) == (name, fit.devices)
    assert (decision.evict, decision.once_idle) == (fit.evict, fit.once_idle)


crowded = st.lists(
    st.tuples(
        st.lists(
            st.builds(
                Replica,
                model=st.sampled_from(MODELS),
                status=st.just(Status.LOADED),
                devices=st.sampled_from([(0,), (1,), (0, 1)]),
                used_mb=st.one_of(st.none(), st.integers(1, 6), st.integers(1, 6)),
                in_flight=st.sampled_from([0, 0, 1]),
                last_used=st.one_of(st.none(), st.integers(0, 99).map(float)),
                load_secs=st.sampled_from([1.0, 5.0]),
            ),
            min_size=1,
            max_size=5,
        ),
        st.tuples(st.integers(0, 3), st.integers(0, 3)),
    ),
    min_size=2,
    max_size=8,
).map(
    lambda found: tuple(
        machine(
            f"n{at}",
            *held,
            devices=tuple(device(i, total=12, free=mb) for i, mb in enumerate(rooms)),
        )
        for at, (held, rooms) in enumerate(found)
    )
)


@given(crowded, fleet.catalogues, fleet.policies, st.integers(3, 20), st.integers(1, 2))
def test_of_many_crowded_nodes_the_cheapest_sacrifice_is_found(
    nodes: tuple[Node, ...], catalogue: dict[str, Profile], policy: Policy, size: int, count: int
) -> None:
    """No node that would have been better is left unasked, whatever the strategy."""
    new = Profile(id="new", size_mb=size, min_devices=count)
    decision = decide(
        fleet_view(nodes, {**catalogue, "new": new}), RouteRequest(model="new"), policy, NOW
    )

    offers = []
    for once_idle in (False, True):
        for one in nodes:
            fit = place(one, new, catalogue, policy.rules, NOW, once_idle=once_idle)
            if isinstance(fit, Fit):
                worth = (bool(fit.victims), fit.tier, fit.price, -fit.spare_mb)
                offers.append((once_idle, *worth, one.name, fit))
    if not offers:
        assert isinstance(decision, Await | Refuse)
        return
    *_, name, fit = min(offers, key=lambda one: one[:-1])
    assert isinstance(decision, Load)
    assert (decision.node, decision.evict, decision.once_idle) == (name, fit.evict, fit.once_idle)


@given(fleet.views(), fleet.requests, fleet.policies)
def test_a_refusal_is_for_good_only_if_it_could_never_work(
    view: FleetView, request: RouteRequest, policy: Policy
) -> None:
    """404 without Retry-After, 503 with one, and never 404 for what a node may yet turn out to be.

    If every node were well and empty, what was refused for good would be refused again.
    """
    decision = decide(view, request, policy, NOW)
    if not isinstance(decision, Refuse):
        return

    assert decision.status in {404, 503}
    assert (decision.retry_after_secs is None) == (decision.status == 404)
    assert decision.detail
    if decision.status == 503:
        return
    asked = [node for node in view.nodes if request.node in (None, node.name)]
    profile = view.profile(view.resolve(request.model))
    for node in asked:
        if profile is None:
            assert node.healthy or node.devices
            continue
        verdict = place(node, profile, view.profiles, policy.rules, NOW)
        seen = node.healthy or node.devices
        assert seen or (isinstance(verdict, NoFit) and verdict.reason in {"not_here", "no_harness"})
        empty = replace(
            node,
            devices=tuple(
                replace(d, free_mb=d.total_mb or 99, reserved_mb=0) for d in node.devices
            ),
            replicas=(),
        )
        assert not isinstance(place(empty, profile, view.profiles, policy.rules, NOW), Fit)


@given(fleet.views(), fleet.requests, fleet.policies)
def test_the_account_agrees_with_the_decision(
    view: FleetView, request: RouteRequest, policy: Policy
) -> None:
    """The node that was chosen is kept, those that were not have a reason, and none is left out."""
    decision = decide(view, request, policy, NOW)
    account = decision.explanation.considered

    asked = [node.name for node in view.nodes if request.node in (None, node.name)]
    assert [one.node for one in account] == asked
    assert all(one.reason for one in account)
    kept = {one.node: one.reason for one in account if one.kept}
    match decision:
        case Serve(node=node):
            assert node in kept
            assert not {reason for reason in kept.values() if reason.startswith("fits")}
        case Await(node=node, reason="no_room"):
            assert not kept
            assert {one.reason for one in account if one.node == node} == {"no_room"}
        case Await(node=node, reason=reason):
            assert kept[node] == reason
            assert not {reason for reason in kept.values() if reason.startswith("fits")}
        case Load(node=node):
            assert kept[node].startswith("fits")
            assert (kept[node] == "fits_once_idle") == bool(decision.once_idle)
            assert bool(decision.evict) <= (kept[node] != "fits")
        case Refuse():
            assert not kept


@given(fleet.views(), st.sampled_from(MODELS), fleet.policies)
def test_another_copy_disturbs_nobody_and_is_never_a_second_one(
    view: FleetView, model: str, policy: Policy
) -> None:
    """Only where nobody leaves, not while one arrives, not where one is, and its account agrees."""
    load = another_copy(view, model, policy, NOW)

    here = [node for node in view.nodes if node.healthy and not node.draining]
    on_the_way = [
        one
        for node in here
        if (one := node.holds(model)) is not None
        and (one.status.value in ARRIVING or (one.status is Status.LOADED and not one.servable))
    ]
    if on_the_way:
        assert load is None
    if load is None:
        return
    node = view.node(load.node)
    assert node is not None
    assert node in here
    held = node.holds(model)
    assert held is None or held.status is Status.UNLOADED
    assert (load.evict, load.once_idle) == ((), ())
    [chosen] = [one for one in load.explanation.considered if one.node == load.node]
    assert (chosen.kept, chosen.reason) == (True, "fits")


@given(fleet.views(), st.sampled_from(MODELS), fleet.policies)
def test_another_copy_goes_where_the_most_room_is(
    view: FleetView, model: str, policy: Policy
) -> None:
    """And is started whenever there is such a node."""
    load, profile = another_copy(view, model, policy, NOW), view.profile(model)
    if profile is None or view.holding(model).arriving:
        assert load is None
        return

    offers = []
    for node in view.nodes:
        held = node.holds(model)
        if usable(node, RouteRequest(model=model)) and (
            held is None or held.status is Status.UNLOADED
        ):
            fit = place(node, profile, view.profiles, policy.rules, NOW)
            if isinstance(fit, Fit) and not fit.victims:
                offers.append((-fit.spare_mb, node.name))
    assert (load is None) == (not offers)
    if load is not None:
        assert load.node == min(offers)[1]


@given(fleet.histories, fleet.requests, fleet.policies, st.randoms(use_true_random=False))
def test_the_order_in_which_nodes_were_seen_does_not_matter(
    history: list[Event], request: RouteRequest, policy: Policy, random: Random
) -> None:
    """Nor that of the catalogue: two workers that saw the same fleet decide the same."""
    nodes, profiles = played(history).nodes, dict(played(history).profiles)
    mixed = random.sample(nodes, len(nodes))
    names = random.sample(list(profiles), len(profiles))

    one = decide(fleet_view(nodes, profiles), request, policy, NOW)
    shuffled = fleet_view(tuple(mixed), {name: profiles[name] for name in names})

    assert spelled(decide(shuffled, request, policy, NOW)) == spelled(one)


@given(
    st.lists(st.one_of(fleet.events, fleet.requests), max_size=15),
    fleet.catalogue_events,
    fleet.policies,
)
def test_replaying_a_log_gives_the_same_decisions(
    log: list[Event | RouteRequest], catalogue: CatalogueChanged, policy: Policy
) -> None:
    """A log of events and requests is all there is to a decision."""

    def replayed() -> list[str]:
        view, said = apply(FleetView(), catalogue), list[str]()
        for entry in log:
            if isinstance(entry, RouteRequest):
                said.append(spelled(decide(view, entry, policy, NOW)))
            else:
                view = apply(view, entry)
        return said

    assert replayed() == replayed()


SEEDED = """
import json
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from cortex_router import decide
from tests.libs.cortex_router import strategies as fleet
said = []

@settings(database=None, derandomize=True, deadline=None, max_examples=60)
@given(fleet.views(), fleet.requests, fleet.policies)
def ask(view, request, policy):
    decision = decide(view, request, policy, fleet.NOW)
    said.append(repr((decision, decision.explanation.considered)))

ask()
print(json.dumps(said))
"""


def test_the_hash_seed_of_the_process_does_not_matter() -> None:
    """Text hashes differently in every process, and so the maps are in another order."""

    def said(seed: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", SEEDED],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found: list[str] = json.loads(done.stdout)
        return found

    one = said("1")

    assert len(one) > 10
    assert said("2") == one


def test_nothing_is_odd_enough_to_raise() -> None:
    """Unknown sizes, no devices, a model named twice, times that run backwards."""
    odd = Node(name="odd", healthy=True)
    for view in (
        fleet_view(),
        fleet_view((odd,)),
        fleet_view((odd,), {"a": Profile(id="a")}),
        fleet_view((replace(odd, healthy=False),), {"a": Profile(id="a", size_mb=0)}),
    ):
        for moment in (-1e9, 0.0, 1e12):
            assert decide(view, RouteRequest(model="a"), Policy(), moment).explanation is not None
    assert apply(fleet_view((odd,)), NodeObserved(odd)).nodes == (odd,)
