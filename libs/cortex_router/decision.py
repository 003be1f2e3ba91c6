"""What can be decided about a request, and the account of how it came about."""

from dataclasses import dataclass, field
from typing import TypeAlias

from cortex_router.eviction import Victim
from cortex_router.view import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequest:
    """A request as far as routing cares. `avoid` are nodes that just failed it."""

    model: str
    avoid: frozenset[str] = frozenset()
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """One node, and what became of it: `reason` is a code, `detail` a sentence."""

    node: str
    kept: bool
    reason: str
    detail: str = ""
    score: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Every node considered for one request."""

    model: str
    considered: tuple[Considered, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """A replica is ready: send it there."""

    node: str
    model: str
    explanation: Explanation = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Await:
    """It is arriving on `node`, or room is about to be made: hold, start nothing."""

    node: str
    model: str
    reason: str
    explanation: Explanation = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Start it on exactly these devices, once exactly these models have left."""

    node: str
    model: str
    devices: tuple[int, ...]
    profile: Profile
    evict: tuple[Victim, ...]
    explanation: Explanation = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """No. `retry_after_secs` is set if and only if it may work later."""

    code: str
    status: int
    detail: str
    retry_after_secs: float | None
    explanation: Explanation = field(repr=False)


Decision: TypeAlias = Serve | Await | Load | Refuse
