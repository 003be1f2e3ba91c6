"""What can be decided about a request, and the account of how it came about."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from cortex_router.eviction import Victim
from cortex_router.nodes import Profile


class RouteRequest(NamedTuple):
    """A request as far as routing cares. `avoid` are nodes that just failed it.

    `session` tells conversations apart (see `session_key`), `tokens` is the prompt's rough size,
    `node` restricts the choice to one node.
    """

    model: str
    avoid: frozenset[str] = frozenset()
    node: str | None = None
    session: str | None = None
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """One node, and what became of it: `reason` is a code, `detail` a sentence."""

    node: str
    kept: bool
    reason: str
    detail: str = ""
    score: tuple[float, ...] = ()


class Explanation:
    """Every node considered for one request: worked out when somebody asks, from the same view."""

    __slots__ = ("_considered", "_survey", "model")

    def __init__(self, model: str, survey: Callable[[], tuple[Considered, ...]]) -> None:
        self.model = model
        self._survey = survey
        self._considered: tuple[Considered, ...] | None = None

    @property
    def considered(self) -> tuple[Considered, ...]:
        """Every node, sorted by name."""
        if self._considered is None:
            self._considered = self._survey()
        return self._considered


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """A replica is ready: send it there.

    `saturated`: everyone who serves the model has a queue, so that another copy may be worth it
    (see `another_copy`).
    """

    node: str
    model: str
    reason: str = "loaded"
    saturated: bool = False
    explanation: Explanation = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Await:
    """It is arriving on `node`, or room is about to be made: hold, start nothing.

    `eta_secs` is how long that should take, None when nobody can tell.
    """

    node: str
    model: str
    reason: str
    eta_secs: float | None = None
    explanation: Explanation = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Start it on exactly these devices, once exactly these models have left.

    `evict` may leave now. `once_idle` are in use or have just come: the node lets them end first.
    """

    node: str
    model: str
    devices: tuple[int, ...]
    profile: Profile
    evict: tuple[Victim, ...] = ()
    once_idle: tuple[Victim, ...] = ()
    explanation: Explanation = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """No. `retry_after_secs` is set if and only if it may work later."""

    code: str
    status: int
    detail: str
    retry_after_secs: float | None
    explanation: Explanation = field(repr=False, compare=False)


Decision: TypeAlias = Serve | Await | Load | Refuse
