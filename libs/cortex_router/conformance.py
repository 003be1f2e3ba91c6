"""What every policy has to keep, tried on views that somebody else makes up.

A user's ranking or strategy is code nobody has seen. `check` decides with it on each view and says
where it breaks a promise that the rest of the system relies on.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite

from cortex_router.choosing import candidate, ready
from cortex_router.decide import decide
from cortex_router.decision import Decision, Load, RouteRequest, Serve
from cortex_router.eviction import displaceable
from cortex_router.nodes import Profile
from cortex_router.policy import Policy
from cortex_router.view import FleetView, fleet_view


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise broken: which one, and how."""

    promise: str
    detail: str


@dataclass(frozen=True, slots=True)
class Case:
    """A view to decide on, and the time it is then (Unix seconds)."""

    view: FleetView
    request: RouteRequest
    now: float


def check(policy: Policy, cases: Iterable[Case]) -> tuple[Violation, ...]:
    """Return every promise that `policy` breaks on these cases; each kind once, as first seen."""
    found: dict[str, Violation] = {}
    for case in cases:
        for violation in _violations(policy, case):
            found.setdefault(violation.promise, violation)
    return tuple(found[promise] for promise in sorted(found))


def _violations(policy: Policy, case: Case) -> list[Violation]:
    where = f"model {case.request.model!r}"
    try:
        numbers = _numbers(policy, case)
        first = decide(case.view, case.request, policy, case.now)
        again = decide(case.view, case.request, policy, case.now)
        mirrored = decide(_mirrored(case.view), case.request, policy, case.now)
    except Exception as error:  # noqa: BLE001  # whatever a user's code does
        return [Violation("never raises", f"{where}: {type(error).__name__}: {error}")]
    found = list(numbers)
    if first != again:
        found.append(Violation("same question, same answer", f"{where}: {first} then {again}"))
    if first != mirrored:
        detail = f"{where}: {first}, and with the nodes told in another order {mirrored}"
        found.append(Violation("the order of nodes does not matter", detail))
    found.extend(_broken_by(first, case, policy))
    return found


def _numbers(policy: Policy, case: Case) -> list[Violation]:
    """Return what is wrong with the numbers that a strategy and a ranking give."""
    view, found = case.view, list[Violation]()
    model = view.resolve(case.request.model)
    strategy, ranking = policy.rules.strategy, policy.serving.ranking
    for node in view.nodes:
        for replica in node.replicas:
            profile = view.profiles.get(replica.model) or Profile(id=replica.model)
            price = strategy.price(replica, profile, case.now, None)
            if not isfinite(price) or price < 0:
                detail = f"{replica.model!r} on {node.name}: {price}"
                found.append(Violation("prices are finite and not negative", detail))
            tier: object = strategy.tier(replica, profile)
            if not isinstance(tier, int):
                detail = f"{replica.model!r} on {node.name}: {tier!r}"
                found.append(Violation("tiers are whole numbers", detail))
    if ranking is None:
        return found
    scores = [
        ranking.score(candidate(view, entry, replica, case.request), case.request, case.now)
        for entry, replica in ready(view, model, case.request)
    ]
    if any(part != part for score in scores for part in score):  # noqa: PLR0124  # NaN only
        found.append(Violation("scores can be compared", f"NaN among {scores}"))
    sorted(scores)  # raises where two cannot be compared
    return found


def _broken_by(decision: Decision, case: Case, policy: Policy) -> list[Violation]:
    """Return what is wrong with where a request goes, whatever the policy prefers."""
    view, found = case.view, list[Violation]()
    if isinstance(decision, Serve):
        node = view.node(decision.node)
        replica = None if node is None else node.holds(decision.model)
        if node is None or replica is None or not (node.usable and replica.ready):
            found.append(Violation("only ready replicas serve", f"{decision}"))
    if isinstance(decision, Load):
        node = view.node(decision.node)
        for victim in decision.evict:
            replica = None if node is None else node.holds(victim.model)
            theirs = view.profiles.get(victim.model) or Profile(id=victim.model)
            if replica is None or not displaceable(
                replica,
                theirs,
                decision.profile,
                node=decision.node,
                now=case.now,
                min_residency_secs=policy.rules.min_residency_secs,
            ):
                found.append(Violation("nobody leaves who may stay", f"{victim.model}: {decision}"))
    return found


def _mirrored(view: FleetView) -> FleetView:
    """Return the same fleet, observed in the opposite order."""
    profiles = {model: view.profiles[model] for model in reversed(list(view.profiles))}
    return fleet_view(tuple(reversed(view.nodes)), profiles, view.aliases)
