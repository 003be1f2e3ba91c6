"""Decide what to do with one request.

`decide` looks at one frozen view and returns one decision. It never waits, logs, reads a clock or
remembers the last call. In order of preference:

1. a ready replica on a healthy node: least pressure wins, then the node's name;
2. a replica that is arriving or recovering on a healthy node: hold, never start a second copy;
3. a healthy node where it fits: pinned first, then without eviction, then with the fewest victims,
   then the most room, then the name;
4. a node where it would fit if somebody ended: hold for that node;
5. refuse: 503 while a node that could take it is away, 404 when no node ever could.
"""

from dataclasses import dataclass, field
from typing import TypeAlias

from cortex_router.decision import (
    Await,
    Considered,
    Decision,
    Explanation,
    Load,
    Refuse,
    RouteRequest,
    Serve,
)
from cortex_router.placement import Fit, NoFit, Rules, place
from cortex_router.view import ARRIVING, FleetView, Node, Profile, Status

RETRY_NODE_AWAY_SECS = 5.0
#: A load that failed, or a state we do not understand: not to be disturbed by another load.
_NOT_RETRIED = frozenset({Status.FAILED, Status.UNKNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to choose where there is a choice."""

    rules: Rules = field(default_factory=Rules)


_Candidate: TypeAlias = tuple[tuple[float, ...], str, Fit]


def decide(view: FleetView, request: RouteRequest, policy: Policy, now: float) -> Decision:
    """Return what to do with `request`. `now` is Unix time in seconds."""
    model = view.resolve(request.model)
    profile = view.profile(model)
    nodes = [n for n in view.nodes if request.node in (None, n.name)]
    account: list[Considered] = []

    ready: list[tuple[float, str]] = []
    for node in nodes:
        if (seen := _ready_here(node, model, request)) is None:
            continue
        account.append(seen)
        if seen.kept:
            ready.append((seen.score[0], node.name))
    if ready:
        return Serve(node=min(ready)[1], model=model, explanation=_explain(model, account))

    if (arriving := _arriving(nodes, model, request)) is not None:
        account.append(Considered(node=arriving[0], kept=True, reason=arriving[1]))
        return Await(
            node=arriving[0],
            model=model,
            reason=arriving[1],
            explanation=_explain(model, account),
        )
    if profile is None:
        return Refuse(
            code="model_not_found",
            status=404,
            detail=f"the model {request.model!r} is not in the catalogue and no node has it",
            retry_after_secs=None,
            explanation=_explain(model, account),
        )
    return _load_or_refuse(view, nodes, profile, request, policy, now, account)


def _load_or_refuse(
    view: FleetView,
    nodes: list[Node],
    profile: Profile,
    request: RouteRequest,
    policy: Policy,
    now: float,
    account: list[Considered],
) -> Decision:
    fits: list[_Candidate] = []
    crowded: list[str] = []
    away: list[str] = []
    for node in nodes:
        placement = place(node, profile, view.profiles, policy.rules, now)
        unknown = not node.devices and not node.healthy
        if isinstance(placement, NoFit) and not (unknown and placement.reason == "too_few_devices"):
            account.append(
                Considered(
                    node=node.name, kept=False, reason=placement.reason, detail=placement.detail
                )
            )
            if placement.ever:
                (crowded if _usable(node, request) else away).append(node.name)
        elif isinstance(placement, NoFit) or not _usable(node, request):
            reason = "unhealthy" if not node.healthy else "draining" if node.draining else "failed"
            account.append(Considered(node=node.name, kept=False, reason=reason))
            away.append(node.name)
        elif (held := node.holds(profile.id)) is not None and held.status in _NOT_RETRIED:
            account.append(Considered(node=node.name, kept=False, reason="load_failed"))
            away.append(node.name)
        else:
            rank = (
                0.0 if node.name in profile.pinned_on else 1.0,
                float(len(placement.evict)),
                -float(placement.spare_mb or 0),
            )
            account.append(Considered(node=node.name, kept=True, reason="fits", score=rank))
            fits.append((rank, node.name, placement))

    explanation = _explain(profile.id, account)
    if fits:
        _, name, fit = min(fits, key=lambda one: one[:2])
        return Load(
            node=name,
            model=profile.id,
            devices=fit.devices,
            profile=profile,
            evict=fit.evict,
            explanation=explanation,
        )
    if crowded:
        return Await(node=min(crowded), model=profile.id, reason="no_room", explanation=explanation)
    if away or not nodes:
        return Refuse(
            code="service_unavailable",
            status=503,
            detail=f"no node that can serve {profile.id!r} is available right now",
            retry_after_secs=RETRY_NODE_AWAY_SECS,
            explanation=explanation,
        )
    reasons = "; ".join(f"{c.node}: {c.detail or c.reason}" for c in account if not c.kept)
    return Refuse(
        code="model_infeasible",
        status=404,
        detail=f"no node of this fleet can ever hold {profile.id!r} ({reasons})",
        retry_after_secs=None,
        explanation=explanation,
    )


def _ready_here(node: Node, model: str, request: RouteRequest) -> Considered | None:
    replica = node.holds(model)
    if replica is None or replica.status is not Status.LOADED:
        return None
    if not _usable(node, request):
        return Considered(node=node.name, kept=False, reason="loaded_but_away")
    if not replica.servable:
        return Considered(node=node.name, kept=False, reason="not_servable")
    return Considered(node=node.name, kept=True, reason="loaded", score=(replica.pressure,))


def _arriving(nodes: list[Node], model: str, request: RouteRequest) -> tuple[str, str] | None:
    """Return the first node where the model is on its way, and in which status."""
    for node in nodes:
        replica = node.holds(model)
        if replica is None or not _usable(node, request):
            continue
        if replica.status in ARRIVING:
            return node.name, replica.status.value
        if replica.status is Status.LOADED and not replica.servable:
            return node.name, "not_servable"
    return None


def _usable(node: Node, request: RouteRequest) -> bool:
    return node.healthy and not node.draining and node.name not in request.avoid


def _explain(model: str, account: list[Considered]) -> Explanation:
    return Explanation(model=model, considered=tuple(account))
