"""How far a load is, judged from what the fleet shows. Pure: values in, a verdict out.

A view may be older than the load it is asked about, so a failure that was there before is believed
only once it has stayed, and an absent row only once it has stayed away.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from cortex_core.wire import ModelInfo, Progress
from cortex_gateway.cli.view import Fleet

STALE_SECS: Final = 3.0
APPEAR_SECS: Final = 30.0
_ON_THE_WAY: Final = frozenset({"queued", "loading", "recovering", "unloading"})


@dataclass(frozen=True, slots=True)
class Underway:
    """It is coming. `on` None: nothing of it shows yet."""

    status: str
    on: str | None = None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Up:
    """It is loaded there."""

    on: str


@dataclass(frozen=True, slots=True)
class Failed:
    """It will not come."""

    reason: str


Verdict: TypeAlias = Underway | Up | Failed


def rows(fleet: Fleet, model: str, node: str | None) -> Iterable[tuple[str, ModelInfo]]:
    """Return each node's row of `model`; only `node`'s where one is given."""
    return (
        (one.name, row)
        for one in fleet.nodes
        if node in (None, one.name)
        for row in one.models
        if row.id == model
    )


def judge(fleet: Fleet, model: str, node: str | None, *, seen: bool, waited_secs: float) -> Verdict:
    """Return how the load of `model` stands.

    `seen`: it was on its way in an earlier view; `waited_secs`: since then, or since it was asked.
    """
    held = list(rows(fleet, model, node))
    for name, row in held:
        if row.status == "loaded":
            return Up(name)
    for name, row in held:
        if row.status in _ON_THE_WAY:
            return Underway(row.status, name, row.progress)
    broken = [(name, row.error) for name, row in held if row.status == "failed"]
    patience = STALE_SECS if seen or broken else APPEAR_SECS
    if waited_secs < patience and not (seen and broken):
        return Underway("queued")
    for name, error in broken:
        return Failed(f"{model} failed on {name}: {error or 'no reason was given'}")
    where = f"on {node}" if node else "on any node"
    return Failed(f"{model} is not being loaded {where}; ask again, or see `cortex status`")


def describe(verdict: Underway) -> str:
    """Return one phrase: `fetching on atlas`, with bytes left to whoever shows them."""
    phase = verdict.progress.phase if verdict.progress else verdict.status
    return f"{phase} on {verdict.on}" if verdict.on else phase
