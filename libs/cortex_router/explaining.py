"""The account of a decision: every node, what was made of it, and by how much."""

from cortex_router.availability import out_reason
from cortex_router.choosing import passed_over, wait_secs
from cortex_router.decision import Considered, RouteRequest
from cortex_router.lifecycle import ARRIVING, Status
from cortex_router.nodes import Profile
from cortex_router.placement import Fit, NoFit, place
from cortex_router.policy import Policy
from cortex_router.view import Entry, FleetView, current


def account_of(
    view: FleetView, request: RouteRequest, policy: Policy, now: float
) -> tuple[Considered, ...]:
    """Return every node with what `decide` makes of it, sorted by name."""
    model = view.resolve(request.model)
    profile = view.profile(model)
    served = bool(view.holding(model).ready)
    return tuple(
        _considered(view, view.entries[name], model, profile, request, policy, now, served=served)
        for name in sorted(view.entries)
        if request.node in (None, name)
    )


def _considered(  # what one verdict depends on
    view: FleetView,
    entry: Entry,
    model: str,
    profile: Profile | None,
    request: RouteRequest,
    policy: Policy,
    now: float,
    *,
    served: bool,
) -> Considered:
    held = _held(view, entry, model, request, policy, now)
    if held is not None:
        return held
    name = entry.node.name
    if profile is None:
        return Considered(node=name, kept=False, reason="not_known")
    if (out := out_reason(entry, model, request)) is not None:
        return Considered(node=name, kept=False, reason=out)
    node, wanted = current(entry), view.wanted(now)
    placement = place(node, profile, view.profiles, policy.rules, now, wanted=wanted)
    if isinstance(placement, NoFit):
        placement = place(
            node, profile, view.profiles, policy.rules, now, once_idle=True, wanted=wanted
        )
    if isinstance(placement, NoFit):
        return Considered(node=name, kept=False, reason=placement.reason, detail=placement.detail)
    return _fits(name, placement, served=served)


def _fits(name: str, fit: Fit, *, served: bool) -> Considered:
    score = (float(fit.tier), fit.price, -float(fit.spare_mb or 0))
    leaving = "; ".join(f"{v.model} leaves: {v.reason}" for v in (*fit.evict, *fit.once_idle))
    where = f"devices {', '.join(map(str, fit.devices))}"
    if fit.spare_mb is not None:
        where += f", {fit.spare_mb} MiB to spare" if not fit.victims else ""
    detail = f"{where}; {leaving}" if leaving else where
    reason = "fits_once_idle" if fit.once_idle else "fits_evicting" if fit.evict else "fits"
    if served:
        return Considered(
            node=name, kept=False, reason="served_elsewhere", detail=detail, score=score
        )
    return Considered(node=name, kept=True, reason=reason, detail=detail, score=score)


def _held(
    view: FleetView, entry: Entry, model: str, request: RouteRequest, policy: Policy, now: float
) -> Considered | None:
    replica, name = entry.node.by_model.get(model), entry.node.name
    if replica is None or replica.status is Status.UNLOADED:
        return None
    if not entry.node.usable or name in request.avoid:
        out = out_reason(entry, model, request) or "failed"
        reason = "loaded_but_away" if replica.status is Status.LOADED else out
        return Considered(node=name, kept=False, reason=reason, detail=out)
    if replica.status in ARRIVING:
        return Considered(node=name, kept=True, reason=replica.status.value)
    if replica.status is not Status.LOADED:
        return None
    if not replica.servable:
        return Considered(node=name, kept=False, reason="not_servable")
    count = entry.conversations.get(model)
    calls_it_home = count.at(view.sessions.generation).total if count else 0
    detail = (
        f"{entry.load(replica)} of {replica.seats} seats in use, {calls_it_home} conversations, "
        f"{replica.decode_tok_s:.0f} tok/s"
    )
    wait = wait_secs(entry, replica, policy.serving.answer_tokens)
    score = (*map(float, entry.ranks.get(model, (0, 0.0))), wait)
    passed = passed_over(entry, replica, policy.serving, now)
    return Considered(
        node=name, kept=passed is None, reason=passed or "loaded", detail=detail, score=score
    )
