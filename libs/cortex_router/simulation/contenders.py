"""The policies that are compared, by name."""

from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Final

from cortex_router.eviction import STRATEGIES, Lru
from cortex_router.nodes import Profile, Replica
from cortex_router.placement import Rules
from cortex_router.policy import Policy
from cortex_router.swapping import Swapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A policy under a name: the gateway's, and how the nodes swap."""

    name: str
    policy: Policy = field(default_factory=Policy)
    swapping: Swapping = field(default_factory=Swapping)


@dataclass(frozen=True, slots=True)
class AtRandom:
    """Prices drawn at random, and so the node and those who leave it: what all others must beat.

    Pure all the same: a price is a digest of what it is asked about.
    """

    seed: int

    def tier(self, replica: Replica, profile: Profile) -> int:
        """Return 0: all are alike."""
        del replica, profile
        return 0

    def price(
        self, replica: Replica, profile: Profile, now: float, wanted_per_sec: float | None
    ) -> float:
        """Return a number from 0 to 1."""
        del profile, wanted_per_sec
        what = f"{self.seed} {replica.model} {replica.loaded_at} {replica.last_used} {now}"
        return int.from_bytes(blake2b(what.encode(), digest_size=8).digest()) / 2**64


#: First come, first served: whoever waits longest gets its model as soon as others can leave.
_FCFS: Final = Swapping(amortise=0.0, linger_secs=0.0, rules=Rules(strategy=Lru()))
NAMES: Final = ("fcfs", "random", *STRATEGIES)


def contender(name: str, seed: int) -> Contender:
    """Return the policy called `name`. Raises KeyError."""
    if name == "fcfs":
        return Contender(name=name, policy=Policy(rules=_FCFS.rules), swapping=_FCFS)
    rules = Rules(strategy=AtRandom(seed) if name == "random" else STRATEGIES[name])
    return of_policy(name, Policy(rules=rules))


def of_policy(name: str, policy: Policy) -> Contender:
    """Return a policy whose rules the nodes obey too."""
    return Contender(name=name, policy=policy, swapping=replace(Swapping(), rules=policy.rules))
