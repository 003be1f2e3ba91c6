"""Replicas that fail again and again: who is asked then, and that somebody always is."""

import time
from collections.abc import Callable

from tests.chaos.faulty_node import At, Fault
from tests.chaos.node_faults import LOST
from tests.chaos.outcomes import SERVED, Outcome, refused
from tests.chaos.plays import refusing, reset
from tests.chaos.scenario import Part, Staged, lone, twin
from tests.chaos.stage import CHAT, CHAT_WHOLE, Misbehaved, Stage
from tests.chaos.wire import Wire, post
from tests.fleet.processes import eventually

#: Failures in a row that open a circuit, and the seconds it stays open at first.
THRESHOLD = 3
FIRST_PAUSE_SECS = 5.0
BROKEN = Fault(At.REQUEST, reset)


def clients_mistakes(stage: Stage, name: str) -> None:
    """Ten requests that the node refuses with 400: it is asked as before."""
    body = b'{"error": {"message": "temperature is too high", "code": "bad_value"}}'
    stage.faulty.arm(Fault(At.REQUEST, refusing("400 Bad Request", body)))
    for _ in range(10):
        _expect(stage, twin(name), refused(400, "bad_value"))
    stage.faulty.disarm()
    _expect_node(stage, twin(name), "a-faulty")
    stage.settles()


def failures_in_a_row(stage: Stage, name: str) -> None:
    """After three failures the replica is passed over, at no cost to anybody."""
    _break(stage, name)
    # Conversations that are new would be shared between the two.
    for number in range(4):
        _expect_node(stage, twin(name), "b-good", text=f"another {number}")
    stage.faulty.disarm()
    stage.settles()


def trial(stage: Stage, name: str) -> None:
    """When its pause is over one request tries the replica, and brings it back."""
    _break(stage, name)
    stage.faulty.disarm()
    eventually(
        lambda: _node_of(stage, twin(name), text=str(time.monotonic())) == "a-faulty",
        within=FIRST_PAUSE_SECS + 3.0,
        every=0.5,
    )
    stage.settles()


def everybody_fails(stage: Stage, name: str) -> None:
    """Both replicas fail until their circuits are open; the first good answer gets out at once."""
    for node in stage.nodes:
        node.arm(BROKEN)
    for _ in range(2 * THRESHOLD):
        _expect(stage, twin(name), LOST)
    for node in stage.nodes:
        node.disarm()
    _expect(stage, twin(name), SERVED)
    stage.settles()


def one_of_two_models(stage: Stage, name: str) -> None:
    """A circuit belongs to one model on one node; the node's others are asked as before."""
    _break(stage, name)
    stage.faulty.disarm()
    _expect_node(stage, lone(name), "a-faulty")
    stage.settles()


def _break(stage: Stage, name: str) -> None:
    """Have the faulty replica fail three times in a row, each time for another conversation."""
    stage.faulty.arm(BROKEN)
    before = len(stage.faulty.asked)
    for number in range(4 * THRESHOLD):
        if len(stage.faulty.asked) - before == THRESHOLD:
            return
        _expect(stage, twin(name), SERVED, text=f"one {number}")
    raise Misbehaved("the faulty replica was not asked three times")


def _expect(stage: Stage, model: str, wanted: Outcome, text: str = "hi") -> None:
    if (heard := stage.outcome(model, text=text)) != wanted:
        raise Misbehaved(f"{heard} instead of {wanted}")


def _expect_node(stage: Stage, model: str, wanted: str, text: str = "hi") -> None:
    if (node := _node_of(stage, model, text)) != wanted:
        raise Misbehaved(f"{node} was asked instead of {wanted}")


def _node_of(stage: Stage, model: str, text: str) -> str:
    """Return which node a request is sent to, first and last."""
    asked = stage.request_id()
    with Wire(stage.cortex.url) as wire:
        wire.send(post(CHAT, CHAT_WHOLE.body(model, text), asked, connection="close"))
        wire.hear()
    line = stage.line_of(asked)
    return str(line["node"]) if line["attempts"] == 1 else "several"


def _breaker(
    name: str, how: str, got: str, run: Callable[[Stage, str], None], *, fast: bool = True
) -> Staged:
    return Staged(name=name, how=how, part=Part.BREAKER, got={"outcome": got}, fast=fast, run=run)


BREAKER_SCENARIOS: tuple[Staged, ...] = (
    _breaker(
        "a client's mistakes",
        "ten times 400 from a node",
        "400 each, in the node's words; the node is asked as before",
        clients_mistakes,
    ),
    _breaker(
        "three failures in a row",
        "one of two replicas resets every connection",
        "the answer each time; then the replica is passed over",
        failures_in_a_row,
    ),
    _breaker(
        "a replica comes back",
        "good again after its circuit opened",
        "one trial after 5 s, and it is asked as before",
        trial,
        fast=False,
    ),
    _breaker(
        "one model of a node fails",
        "its circuit opens",
        "the node's other models are served by it",
        one_of_two_models,
    ),
    _breaker(
        "every replica fails",
        "until all circuits are open",
        "503 `upstream_unreachable`, Retry-After; the answer as soon as one is good again",
        everybody_fails,
    ),
)
