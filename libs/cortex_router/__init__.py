"""Where a request runs: every decision about a fleet of GPU nodes, as pure functions of values.

Standard library only. `decide(view, request, policy, now)` is the front door; `apply(view, event)`
makes the next view. The same `place` and `displaceable` serve the gateway and the node itself.
"""

from cortex_router.decide import Policy, decide
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
from cortex_router.eviction import STRATEGIES, Strategy, Victim, displaceable, lru, priority
from cortex_router.placement import Fit, NoFit, Placement, Rules, place
from cortex_router.view import (
    ARRIVING,
    DEFAULT_PRIORITY,
    PINNED_PRIORITY,
    RESIDENT,
    CatalogueChanged,
    Device,
    Event,
    FleetView,
    Node,
    NodeForgotten,
    NodeLost,
    NodeObserved,
    Profile,
    Replica,
    Status,
    apply,
)

__all__ = [
    "ARRIVING",
    "DEFAULT_PRIORITY",
    "PINNED_PRIORITY",
    "RESIDENT",
    "STRATEGIES",
    "Await",
    "CatalogueChanged",
    "Considered",
    "Decision",
    "Device",
    "Event",
    "Explanation",
    "Fit",
    "FleetView",
    "Load",
    "NoFit",
    "Node",
    "NodeForgotten",
    "NodeLost",
    "NodeObserved",
    "Placement",
    "Policy",
    "Profile",
    "Refuse",
    "Replica",
    "RouteRequest",
    "Rules",
    "Serve",
    "Status",
    "Strategy",
    "Victim",
    "apply",
    "decide",
    "displaceable",
    "lru",
    "place",
    "priority",
]
