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

from cortex_router.availability import arrival, could_load, out_reason
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
from cortex_router.nodes import Node, Profile
from cortex_router.placement import barred_from, never_fits
from cortex_router.policy import Policy
from cortex_router.siting import best_site, free_site
from cortex_router.view import Entry, FleetView

RETRY_NODE_AWAY_SECS = 5.0


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
    if (arriving := arrival(view, model, request)) is not None:
        return Await(
            node=arriving.node,
            model=model,
            reason=arriving.reason,
            eta_secs=arriving.eta_secs,
            explanation=explanation,
        )
    profile = view.profile(model)
    if profile is None:
        return _unknown(view, request, explanation)
    found = best_site(view, could_load(view, model, request), profile, policy, now)
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
    return _hold_or_refuse(view, request, profile, explanation)


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
        for entry in could_load(view, model, request)
        if (held := entry.node.by_model.get(model)) is None or held.status is Status.UNLOADED
    ]
    found = free_site(view, fresh, profile, policy, now)
    if found is None:
        return None
    name, fit = found
    explanation = Explanation(model, lambda: account_of(view, request, policy, now, another=True))
    return Load(
        node=name, model=model, devices=fit.devices, profile=profile, explanation=explanation
    )


def _asked(view: FleetView, request: RouteRequest) -> list[Entry]:
    """Return the nodes that the request may go to, by name."""
    return [view.entries[name] for name in sorted(view.entries) if request.node in (None, name)]


def _unseen(node: Node) -> bool:
    """Tell whether nobody knows yet what the node has."""
    return not node.healthy and not node.devices


def _unknown(view: FleetView, request: RouteRequest, explanation: Explanation) -> Refuse:
    """Refuse a model that nobody has told of: for good, once every node has been seen."""
    asked = _asked(view, request)
    if not view.entries or any(_unseen(entry.node) for entry in asked):
        names = ", ".join(entry.node.name for entry in asked if _unseen(entry.node))
        return _unavailable(
            f"the model {request.model!r} is not in the catalogue, and not every node has been "
            f"seen yet ({names or 'no nodes'})",
            explanation,
        )
    return Refuse(
        code="model_not_found",
        status=404,
        detail=f"the model {request.model!r} is not in the catalogue and no node has it",
        retry_after_secs=None,
        explanation=explanation,
    )


def _unavailable(detail: str, explanation: Explanation) -> Refuse:
    return Refuse(
        code="service_unavailable",
        status=503,
        detail=detail,
        retry_after_secs=RETRY_NODE_AWAY_SECS,
        explanation=explanation,
    )


def _hold_or_refuse(
    view: FleetView, request: RouteRequest, profile: Profile, explanation: Explanation
) -> Decision:
    """Return what to do with a model that fits nowhere, not even once those in use have ended."""
    crowded: list[str] = []
    away: list[str] = []
    never: list[str] = []
    for entry in _asked(view, request):
        node = entry.node
        verdict = barred_from(node, profile)
        if verdict is None and not _unseen(node):
            verdict = never_fits(profile, node.devices)
        if verdict is not None:
            never.append(f"{node.name}: {verdict.detail}")
        elif (out := out_reason(entry, profile.id, request)) is not None:
            away.append(f"{node.name}: {out}")
        else:
            crowded.append(node.name)
    if crowded:
        return Await(node=crowded[0], model=profile.id, reason="no_room", explanation=explanation)
    if away or not view.entries:
        return _unavailable(
            f"no node that can serve {profile.id!r} is available right now "
            f"({'; '.join(away) or 'no nodes'})",
            explanation,
        )
    return Refuse(
        code="model_infeasible",
        status=404,
        detail=f"no node of this fleet can ever hold {profile.id!r} "
        f"({'; '.join(never) or f'no node is called {request.node!r}'})",
        retry_after_secs=None,
        explanation=explanation,
    )
