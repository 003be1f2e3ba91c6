"""Where a request runs: every decision about a fleet of GPU nodes, as pure functions of values.

Standard library only. `decide(view, request, policy, now)` is the front door; `apply(view, event)`
makes the next view. The same `place` and `displaceable` serve the gateway and the node itself.
"""

from cortex_router.affinity import rough_tokens, session_key
from cortex_router.choosing import Candidate, Ranking, Serving
from cortex_router.circuit import Circuit
from cortex_router.decide import another_copy, decide
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
from cortex_router.defragmentation import due_for_restart
from cortex_router.eviction import STRATEGIES, Cost, Lru, Priority, Strategy, Victim, displaceable
from cortex_router.lifecycle import (
    ARRIVING,
    RESIDENT,
    TRANSITIONS,
    IllegalTransition,
    Life,
    Status,
    diagram,
    step,
)
from cortex_router.nodes import DEFAULT_PRIORITY, PINNED_PRIORITY, Device, Node, Profile, Replica
from cortex_router.persistent import PersistentMap
from cortex_router.placement import Fit, NoFit, Placement, Rules, place
from cortex_router.policy import Policy
from cortex_router.queueing import Admitted, FairQueue, Outcome, Queued, Refused, Waiting
from cortex_router.retry_budget import RetryBudget
from cortex_router.swapping import (
    Close,
    Demand,
    Hold,
    Reopen,
    Start,
    Swapping,
    SwapStep,
    next_swaps,
    wait_bound_secs,
)
from cortex_router.view import (
    CatalogueChanged,
    Event,
    FleetView,
    NodeForgotten,
    NodeLost,
    NodeObserved,
    RequestEnded,
    RequestSent,
    apply,
    fleet_view,
)
from cortex_router.waiting_line import Ticket

__all__ = [
    "ARRIVING",
    "DEFAULT_PRIORITY",
    "PINNED_PRIORITY",
    "RESIDENT",
    "STRATEGIES",
    "TRANSITIONS",
    "Admitted",
    "Await",
    "Candidate",
    "CatalogueChanged",
    "Circuit",
    "Close",
    "Considered",
    "Cost",
    "Decision",
    "Demand",
    "Device",
    "Event",
    "Explanation",
    "FairQueue",
    "Fit",
    "FleetView",
    "Hold",
    "IllegalTransition",
    "Life",
    "Load",
    "Lru",
    "NoFit",
    "Node",
    "NodeForgotten",
    "NodeLost",
    "NodeObserved",
    "Outcome",
    "PersistentMap",
    "Placement",
    "Policy",
    "Priority",
    "Profile",
    "Queued",
    "Ranking",
    "Refuse",
    "Refused",
    "Reopen",
    "Replica",
    "RequestEnded",
    "RequestSent",
    "RetryBudget",
    "RouteRequest",
    "Rules",
    "Serve",
    "Serving",
    "Start",
    "Status",
    "Strategy",
    "SwapStep",
    "Swapping",
    "Ticket",
    "Victim",
    "Waiting",
    "another_copy",
    "apply",
    "decide",
    "diagram",
    "displaceable",
    "due_for_restart",
    "fleet_view",
    "next_swaps",
    "place",
    "rough_tokens",
    "session_key",
    "step",
    "wait_bound_secs",
]
