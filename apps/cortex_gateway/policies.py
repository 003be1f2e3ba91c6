"""The router's policy, from settings: built-in choices by name, a user's own by its import path.

A user's object may be a whole `Policy`, an eviction strategy (`tier` and `price`) or a ranking of
replicas (`score`); each is told by what it can do.
"""

from dataclasses import replace
from typing import cast

from cortex_core.loading import ConfigError
from cortex_core.plugins import load_object
from cortex_core.settings import CortexSettings
from cortex_router import STRATEGIES, Policy, Ranking, Rules, Serving, Strategy

LEAST_PRESSURE = "least_pressure"


def policy_of(settings: CortexSettings) -> Policy:
    """Return the operator's policy. Raises ConfigError for an object that cannot be used."""
    eviction, routing = settings.eviction, settings.routing
    rules = Rules(
        strategy=strategy_named(eviction.strategy, where="eviction.strategy"),
        min_residency_secs=eviction.min_residency_secs,
    )
    base = Policy(rules=rules, serving=Serving(affinity=routing.affinity))
    if routing.policy == LEAST_PRESSURE:
        return base
    return with_object(base, routing.policy, where="routing.policy")


def strategy_named(name: str, *, where: str) -> Strategy:
    """Return an eviction strategy, built in or a user's own. Raises ConfigError."""
    if (known := STRATEGIES.get(name)) is not None:
        return known
    return cast("Strategy", load_object(name, where=where, methods=("tier", "price")))


def with_object(base: Policy, name: str, *, where: str) -> Policy:
    """Return `base` with a user's object in the place that it is made for. Raises ConfigError."""
    found = load_object(name, where=where, methods=())
    if isinstance(found, Policy):
        return found
    if callable(getattr(found, "score", None)):
        ranking = cast("Ranking", found)
        return replace(base, serving=replace(base.serving, ranking=ranking))
    if callable(getattr(found, "tier", None)) and callable(getattr(found, "price", None)):
        return replace(base, rules=replace(base.rules, strategy=cast("Strategy", found)))
    raise ConfigError(
        f"{where}: {name!r} is no policy: it needs `score` (a ranking), `tier` and `price` "
        f"(an eviction strategy), or has to be a cortex_router.Policy"
    )
