"""Two choices of one's own: copy this file, change it, and name it in the configuration.

[eviction]
strategy = "policy:SmallestFirst"     # with this file's folder on PYTHONPATH
[routing]
policy = "policy:Fastest"

cortex policy check policy:SmallestFirst
"""

from cortex_router import Candidate, Profile, Replica, RouteRequest


class SmallestFirst:
    """Whoever holds the least memory is the cheapest to lose: small models leave first."""

    def tier(self, replica: Replica, profile: Profile) -> int:
        """Return the residency class: a higher one is not touched while the lower ones suffice."""
        del replica
        return profile.residency_class

    def price(
        self, replica: Replica, profile: Profile, now: float, wanted_per_sec: float | None
    ) -> float:
        """Return its size in MiB; one of unknown size is taken for a big one."""
        del now, wanted_per_sec
        return float(replica.used_mb or profile.size_mb or 100_000)


class Fastest:
    """The fastest replica with a free seat; when there is none, the one with the shortest queue."""

    def score(self, candidate: Candidate, request: RouteRequest, now: float) -> tuple[float, ...]:
        """Return a key: the lowest is asked."""
        del request, now
        waiting = max(0, candidate.load + 1 - candidate.replica.seats)
        return (float(waiting), -candidate.replica.decode_tok_s)
