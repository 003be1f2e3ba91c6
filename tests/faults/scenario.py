"""One row of the tables: a fault, how it is made, and what has to come of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from tests.chaos.outcomes import event, refused
from tests.chaos.stage import Misbehaved
from tests.faults.stage import Stage


class Part(Enum):
    """What fails; one table each."""

    ANSWER = "An engine that answers"
    LOAD = "An engine that loads"
    DEVICE = "GPUs and their driver"
    NODE = "The node"


@dataclass(slots=True)
class Measured:
    """Seconds that a run took, by what they were spent on."""

    secs: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return "; ".join(f"{name} {secs:.2f} s" for name, secs in self.secs.items()) or "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row. `run` raises when anything else than `got` happens, and says how long it took.

    Those that are not `fast` are left out of the test suite.
    """

    name: str
    how: str
    part: Part
    got: Mapping[str, str]
    run: Callable[[Stage, Measured], None]
    fast: bool = True


def expect(what: str, heard: object, wanted: object) -> None:
    """Raise Misbehaved unless that was heard."""
    if heard != wanted:
        raise Misbehaved(f"{what}: {heard} instead of {wanted}")


LOST = (refused(503, "upstream_unreachable"), event("upstream_unreachable"))


NO_ROOM = "insufficient_vram"
