"""How fast a gateway works, from two looks at it. Pure."""

from typing import NamedTuple

from cortex_gateway.cli.view import RequestList


class Look(NamedTuple):
    """What was done by a moment, a reading of some clock in seconds."""

    at: float
    requests: int
    tokens: int


class Rates(NamedTuple):
    """A second, each."""

    requests: float
    tokens: float


def look(listed: RequestList, at: float) -> Look:
    """Return what was done by now: the tokens of answers under way are counted as they come."""
    under_way = sum(one.tokens for one in listed.in_flight)
    return Look(at, listed.totals.requests, listed.totals.completion_tokens + under_way)


def rates(before: Look, after: Look) -> Rates:
    """Return the rates between two looks; a gateway that was started anew begins at nothing."""
    span = after.at - before.at
    if span <= 0:
        return Rates(0.0, 0.0)
    return Rates(
        max(0, after.requests - before.requests) / span, max(0, after.tokens - before.tokens) / span
    )
