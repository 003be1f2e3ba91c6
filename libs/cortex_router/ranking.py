"""The order in which the ready replicas of one model are asked.

It is kept up to date, so that deciding reads its head instead of comparing the whole fleet.

A replica with a free seat goes before one without. Among those with one, fewest conversations (or
requests, if more) against seats and speed; among the full ones, the shortest wait. So equal nodes
share evenly, a node twice as fast gets twice as many, and that also holds when nobody is in flight.
"""

from bisect import bisect_left
from typing import NamedTuple, TypeAlias

from cortex_router.nodes import Replica

Rank: TypeAlias = tuple[int, float]


def rank_of(replica: Replica, load: int, conversations: int) -> Rank:
    """Return the rank of a ready replica; the lowest goes first.

    `load` is who is served or waits there now, `conversations` who calls it home.
    """
    seats = replica.seats
    power = seats * replica.decode_tok_s
    if load >= seats:
        return (1, (load + 1 - seats) / power)
    return (0, (max(load, conversations) + 1) / power)


class Holding(NamedTuple):
    """The nodes that know a model: those ready to serve it, by rank and name, and the others."""

    ready: tuple[tuple[Rank, str], ...] = ()
    arriving: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every node that knows the model."""
        return (*(name for _, name in self.ready), *self.arriving, *self.idle)

    def ranked(self, name: str, before: Rank | None, after: Rank | None) -> "Holding":
        """Return the holding with a ready replica entered, moved, or (`after` None) taken out."""
        ready = self.ready
        if before is not None and after is not None and len(ready) == 1:
            return Holding(((after, name),), self.arriving, self.idle)
        if before is not None:
            at = bisect_left(ready, (before, name))
            ready = ready[:at] + ready[at + 1 :]
        if after is not None:
            at = bisect_left(ready, (after, name))
            ready = (*ready[:at], (after, name), *ready[at:])
        return Holding(ready, self.arriving, self.idle)

    def placed(self, name: str, *, arriving: bool, idle: bool) -> "Holding":
        """Return the holding with a node entered among those that do not serve, or in neither."""
        there, asleep = _entered(self.arriving, name, arriving), _entered(self.idle, name, idle)
        if there is self.arriving and asleep is self.idle:
            return self
        return Holding(self.ready, there, asleep)


def _entered(names: tuple[str, ...], name: str, wanted: bool) -> tuple[str, ...]:  # noqa: FBT001
    at = bisect_left(names, name)
    there = at < len(names) and names[at] == name
    if there == wanted:
        return names
    return (*names[:at], name, *names[at:]) if wanted else names[:at] + names[at + 1 :]
