"""Decide what to do with one request.

`decide` looks at one frozen view and returns one decision. It never waits, logs, reads a clock or
remembers the last call. In order of preference:

1. a ready replica on a usable node: see `choosing`;
2. a replica that is arriving or recovering on a usable node: hold, never start a second copy;
3. a usable node where it fits: preferred first, then without eviction, then with the cheapest one,
   then the most room, then the name;
4. a node where it fits once those who are in use have ended: ask it to be next there;
5. a node where others would have to give way who do not have to: hold for it;
6. refuse: 503 while a node that could take it is away, 404 when no node ever could.
"""

from collections.abc import Iterator

from cortex_router.availability import eta_secs, out_reason
from cortex_router.choosing import choose
from cortex_router.decision import (
    Await,
    Decision,
    Explanation,
    Load,
    Refuse,
    RouteRequest,
    Serve,
)
from cortex_router.explaining import account_of
from cortex_router.lifecycle import Status
from cortex_router.nodes import Profile
from cortex_router.placement import Fit, NoFit, barred_from, fit_order, place
from cortex_router.policy import Policy
from cortex_router.view import Entry, FleetView, current

RETRY_NODE_AWAY_SECS = 5.0
#: Nodes on which an eviction is worked out in full; beyond them only those idle the longest.
SHORTLIST = 16


def decide(view: FleetView, request: RouteRequest, policy: Policy, now: float) -> Decision:
    """Return what to do with `request`. `now` is Unix time in seconds."""
    model = view.resolve(request.model)
    explanation = Explanation(model, lambda: account_of(view, request, policy, now))
    choice = choose(view, model, request, policy.serving, now)
    if choice is not None:
        return Serve(
            node=choice.node,
            model=model,
            reason=choice.reason,
            saturated=choice.saturated,
            explanation=explanation,
        )
    if (arriving := _arriving(view, model, request)) is not None:
        name, reason, eta = arriving
        return Await(node=name, model=model, reason=reason, eta_secs=eta, explanation=explanation)
    profile = view.profile(model)
    if profile is None:
        return Refuse(
            code="model_not_found",
            status=404,
            detail=f"the model {request.model!r} is not in the catalogue and no node has it",
            retry_after_secs=None,
            explanation=explanation,
        )
    usable = [entry for entry in _entries(view, request) if not _out(entry, model, request)]
    found = _best_place(view, usable, profile, policy, now)
    if found is not None:
        name, fit = found
        return Load(
            node=name,
            model=model,
            devices=fit.devices,
            profile=profile,
            evict=fit.evict,
            once_idle=fit.once_idle,
            explanation=explanation,
        )
    return _hold_or_refuse(view, request, profile, policy, now, explanation)


def another_copy(view: FleetView, model: str, policy: Policy, now: float) -> Load | None:
    """Return a load of one more copy, where there is room for it without an eviction.

    For a model whose every replica has a queue; None while a copy is on its way already.
    """
    profile, holding = view.profile(model), view.holding(model)
    if profile is None or holding.arriving:
        return None
    request = RouteRequest(model=model)
    fresh = [
        entry
        for entry in _entries(view, request)
        if model not in entry.node.by_model and not _out(entry, model, request)
    ]
    found = _free_fit(view, fresh, profile, policy, now)
    if found is None:
        return None
    name, fit = found
    explanation = Explanation(model, lambda: account_of(view, request, policy, now))
    return Load(
        node=name, model=model, devices=fit.devices, profile=profile, explanation=explanation
    )


def _entries(view: FleetView, request: RouteRequest) -> Iterator[Entry]:
    if request.node is None:
        yield from view.entries.values()
    elif (entry := view.entries.get(request.node)) is not None:
        yield entry


def _out(entry: Entry, model: str, request: RouteRequest) -> bool:
    return out_reason(entry, model, request) is not None


def _arriving(
    view: FleetView, model: str, request: RouteRequest
) -> tuple[str, str, float | None] | None:
    """Return where the model is on its way, in which status, and for how long; soonest first."""
    found: list[tuple[float, str, str, float | None]] = []
    for name in view.holding(model).arriving:
        if name in request.avoid or request.node not in (None, name):
            continue
        replica = view.entries[name].node.by_model[model]
        loaded = replica.status is Status.LOADED
        reason = "not_servable" if loaded else replica.status.value
        eta = eta_secs(replica)
        found.append((float("inf") if eta is None else eta, name, reason, eta))
    return min(found)[1:] if found else None


def _best_place(
    view: FleetView, usable: list[Entry], profile: Profile, policy: Policy, now: float
) -> tuple[str, Fit] | None:
    """Return the best node to load on now, else the best to be next on."""
    groups = [usable]
    if preferred := frozenset((*profile.pinned_on, *profile.preferred_on)):
        groups = [
            [entry for entry in usable if entry.node.name in preferred],
            [entry for entry in usable if entry.node.name not in preferred],
        ]
    for group in groups:
        if (found := _free_fit(view, group, profile, policy, now)) is not None:
            return found
        if (found := _evicting_fit(view, group, profile, policy, now)) is not None:
            return found
    return _evicting_fit(view, usable, profile, policy, now, once_idle=True)


def _free_fit(
    view: FleetView, entries: list[Entry], profile: Profile, policy: Policy, now: float
) -> tuple[str, Fit] | None:
    """Return the node with the most room to spare, where nobody has to leave."""
    share, count = profile.share_mb, profile.min_devices
    if share is not None:
        # One comparison with the room on its emptiest devices rules out most nodes.
        entries = [
            entry
            for entry in entries
            if len(rooms := entry.node.rooms_mb) >= count and rooms[count - 1] >= share
        ]
        entries.sort(key=lambda entry: (-entry.node.rooms_mb[count - 1], entry.node.name))
    # Unless some devices are not for it, the roomiest node is the one: it need not be compared.
    simple = share is not None and not profile.apart_from and profile.min_device_mb is None
    found: list[tuple[int, str, Fit]] = []
    for entry in entries:
        node = current(entry)
        fit = place(node, profile, view.profiles, policy.rules, now)
        if isinstance(fit, Fit) and not fit.victims:
            if simple:
                return node.name, fit
            found.append((-(fit.spare_mb or 0), node.name, fit))
    if not found:
        return None
    _, name, best = min(found, key=lambda one: one[:2])
    return name, best


def _evicting_fit(
    view: FleetView,
    entries: list[Entry],
    profile: Profile,
    policy: Policy,
    now: float,
    *,
    once_idle: bool = False,
) -> tuple[str, Fit] | None:
    """Return the node with the cheapest sacrifice, then the most room, then the first by name."""
    best: tuple[tuple[tuple[bool, int, float, int], str], Fit] | None = None
    wanted = view.wanted(now)
    for entry in _shortlist(entries, profile):
        node = current(entry)
        fit = place(
            node,
            profile,
            view.profiles,
            policy.rules,
            now,
            once_idle=once_idle,
            wanted=wanted,
        )
        if isinstance(fit, Fit):
            key = (fit_order(fit)[:4], node.name)
            if best is None or key < best[0]:
                best = (key, fit)
    return None if best is None else (best[0][1], best[1])


def _shortlist(entries: list[Entry], profile: Profile) -> list[Entry]:
    if len(entries) <= SHORTLIST:
        return entries
    open_to = [entry for entry in entries if barred_from(entry.node, profile) is None]
    open_to.sort(key=lambda entry: (entry.node.longest_idle_since, entry.node.name))
    return open_to[:SHORTLIST]


def _hold_or_refuse(
    view: FleetView,
    request: RouteRequest,
    profile: Profile,
    policy: Policy,
    now: float,
    explanation: Explanation,
) -> Decision:
    crowded: list[str] = []
    away: list[str] = []
    reasons: list[str] = []
    for entry in sorted(_entries(view, request), key=lambda one: one.node.name):
        name = entry.node.name
        verdict = place(entry.node, profile, view.profiles, policy.rules, now, once_idle=True)
        unseen = not entry.node.devices and not entry.node.healthy
        if isinstance(verdict, NoFit) and not verdict.ever and not unseen:
            reasons.append(f"{name}: {verdict.detail}")
        elif _out(entry, profile.id, request):
            away.append(name)
        else:
            crowded.append(name)
    if crowded:
        return Await(node=crowded[0], model=profile.id, reason="no_room", explanation=explanation)
    if away or not len(view.entries):
        return Refuse(
            code="service_unavailable",
            status=503,
            detail=f"no node that can serve {profile.id!r} is available right now",
            retry_after_secs=RETRY_NODE_AWAY_SECS,
            explanation=explanation,
        )
    return Refuse(
        code="model_infeasible",
        status=404,
        detail=f"no node of this fleet can ever hold {profile.id!r} ({'; '.join(reasons)})",
        retry_after_secs=None,
        explanation=explanation,
    )
