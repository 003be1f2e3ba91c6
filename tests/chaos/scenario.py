"""One row of the table: a fault, what is done about it, and what the clients got."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from tests.chaos.node_faults import NODE_FAULTS, NodeFault
from tests.chaos.outcomes import SERVED, Outcome
from tests.chaos.stage import CHAT_STREAM, CHAT_WHOLE, FACES, Face, Misbehaved, Stage


class Part(Enum):
    """Where the fault lies; one table each."""

    NODE = "Between the gateway and a node"
    CLIENT = "Clients"
    BREAKER = "Replicas that fail again and again"
    OVERLOAD = "More than there is room for"
    PROCESS = "Processes"
    CLOCK = "Names and clocks"


Got = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fault by name, how it is made, and what every client got from it.

    `run` raises when anything else happened, or when something was left behind. `not_yet` says
    what is still different, and goes when that does.
    """

    name: str
    how: str
    part: Part
    got: Got
    fast: bool = True
    not_yet: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged(Scenario):
    """A scenario on the common stage, whose models `lone` and `twin` carry its name."""

    run: Callable[[Stage, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone(Scenario):
    """A scenario that needs daemons of its own, and a folder for them."""

    run: Callable[[Path], None]


def lone(name: str) -> str:
    """Return the model that only the faulty node has."""
    return f"lone/{name}"


def twin(name: str) -> str:
    """Return the model that both nodes have."""
    return f"twin/{name}"


def node_scenario(fault: NodeFault) -> Staged:
    """Return what is done with a fault of a node: every way to ask, alone and with a replica."""

    def run(stage: Stage, name: str) -> None:
        fault.make(stage.faulty)
        try:
            _every_face(stage, fault, lone(name))
            if fault.replaced:
                _replaced(stage, fault, twin(name))
        finally:
            fault.undo(stage.faulty)
        stage.recovers(lone(name))
        stage.settles()

    return Staged(
        name=fault.name,
        how=fault.how,
        part=Part.NODE,
        got={
            "whole": str(fault.whole.for_openai()),
            "streamed": str(fault.streamed.for_openai()),
            "another replica": "takes over" if fault.replaced else "–",
        },
        fast=fault.fast,
        not_yet=fault.not_yet,
        run=run,
    )


def _every_face(stage: Stage, fault: NodeFault, model: str) -> None:
    def ask(face: Face) -> Outcome:
        return stage.outcome(model, face, fault.within_secs, fault.text)

    with ThreadPoolExecutor(1 if fault.one_by_one else len(FACES)) as pool:
        outcomes = list(pool.map(ask, FACES.values()))
    for (label, face), heard in zip(FACES.items(), outcomes, strict=True):
        wanted = face.expects(fault.streamed if face.stream else fault.whole)
        if heard != wanted:
            raise Misbehaved(f"{label}: {heard} instead of {wanted}")


def _replaced(stage: Stage, fault: NodeFault, model: str) -> None:
    for face in (CHAT_WHOLE, CHAT_STREAM):
        heard = stage.outcome(model, face, fault.within_secs, fault.text)
        if heard != SERVED:
            raise Misbehaved(f"with another replica: {heard} instead of its answer")


NODE_SCENARIOS = tuple(node_scenario(fault) for fault in NODE_FAULTS)
