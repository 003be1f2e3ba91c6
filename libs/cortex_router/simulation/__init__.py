"""A fleet in simulated time, driven by exactly the functions that run the real one.

`simulate(fleet, arrivals(workload, models, random.Random(1)), contender("lru", seed=1))`: the same
arguments give the same figures.
"""

from cortex_router.simulation.arrivals import Arrival, Turn
from cortex_router.simulation.contenders import NAMES, AtRandom, Contender, contender, of_policy
from cortex_router.simulation.machines import BadLoad, Death, Fault, Fleet, Machine, Model
from cortex_router.simulation.results import THRASH_SECS, Results, Spread
from cortex_router.simulation.run import simulate
from cortex_router.simulation.workload import (
    Bursts,
    Day,
    Randomness,
    Sessions,
    Workload,
    arrivals,
)

__all__ = [
    "NAMES",
    "THRASH_SECS",
    "Arrival",
    "AtRandom",
    "BadLoad",
    "Bursts",
    "Contender",
    "Day",
    "Death",
    "Fault",
    "Fleet",
    "Machine",
    "Model",
    "Randomness",
    "Results",
    "Sessions",
    "Spread",
    "Turn",
    "Workload",
    "arrivals",
    "contender",
    "of_policy",
    "simulate",
]
