"""More requests than there is room for: who is served then, and who is not asked once more."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx

from cortex_router.retry_budget import FLOOR, SHARE
from tests.chaos.faulty_node import At, Fault
from tests.chaos.node_faults import LOST
from tests.chaos.outcomes import SERVED
from tests.chaos.plays import reset
from tests.chaos.scenario import Alone, Part
from tests.chaos.stage import Misbehaved
from tests.chaos.surroundings import TWIN, two_nodes
from tests.demo_model import demo_model_path
from tests.fleet.conversations import CHAT, entry, in_flight, say
from tests.fleet.processes import Daemon, eventually, workbench

#: Places in the queue of the node's only seat, and how many one client wants at once.
QUEUE, FLOOD = 8, 12
#: How often the quiet client asks, one after the other.
QUIET = 3
#: Requests to a fleet whose every node fails.
MANY = 100


def flood(folder: Path) -> None:
    """A client fills a model's queue; another one has its turn after two others at most."""
    with workbench(folder) as bench:
        neuron = bench.neuron(admission={"max_in_flight": 1, "max_queue_depth": QUEUE})
        cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model_path())])
        with ThreadPoolExecutor(FLOOD) as pool:
            eventually(lambda: _asks(cortex, "quiet").status_code == 200)
            flooding = [pool.submit(_asks, cortex, "flood") for _ in range(FLOOD)]
            eventually(lambda: sum(one.done() for one in flooding) == FLOOD - QUEUE - 1)
            for _ in range(QUIET):
                _quiet_turn(cortex, flooding)
            wait(flooding)
        told = [
            (one.result().status_code, "retry-after" in one.result().headers) for one in flooding
        ]
        # The first of the quiet client takes the place of the flood's last.
        served, refused = told.count((200, False)), told.count((503, True))
        if (served, refused) != (QUEUE, FLOOD - QUEUE):
            raise Misbehaved(f"of the flood {served} were served and {refused} refused: {told}")
        eventually(lambda: in_flight(neuron, "demo") == 0, within=2.0)


def _quiet_turn(cortex: Daemon, flooding: list[Future[httpx.Response]]) -> None:
    before = sum(one.done() for one in flooding)
    answer = _asks(cortex, "quiet")
    passed = sum(one.done() for one in flooding) - before
    # One has the seat, one has its turn, and one may have lost its place.
    if answer.status_code != 200 or passed > 3:
        raise Misbehaved(f"{answer.status_code} after {passed} of the flood")
    if all(one.done() for one in flooding):
        raise Misbehaved("the flood was over too early to tell")


def _asks(cortex: Daemon, key: str) -> httpx.Response:
    """Ask for a short answer, as the client with this key."""
    body: dict[str, Any] = say("demo", text="Tell a story.", max_tokens=20)
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(
        f"{cortex.url}{CHAT}", json=body, headers=headers, timeout=60.0, trust_env=False
    )


def everybody_fails_under_load(folder: Path) -> None:
    """Both replicas reset every connection: they are not asked twice as often for it."""
    with two_nodes(folder) as (stage, _):
        for node in stage.nodes:
            node.arm(Fault(At.REQUEST, reset))
        before = sum(len(node.asked) for node in stage.nodes)
        began = time.monotonic()
        for number in range(MANY):
            if (heard := stage.outcome(TWIN, text=f"one {number}")) != LOST:
                raise Misbehaved(f"{heard} instead of {LOST}")
        windows = 1 + (time.monotonic() - began) // 10
        asked = sum(len(node.asked) for node in stage.nodes) - before
        most = MANY + SHARE * (MANY + 10) + FLOOR * windows
        if not MANY < asked <= most:
            raise Misbehaved(f"{MANY} requests became {asked}, of {most:g} at most")
        told = [str(one.get("nobody_else")) for one in stage.cortex.events("request.failed")]
        if not any("too many requests had to be sent again" in one for one in told):
            raise Misbehaved("nothing in the log says why nobody else was asked")
        for node in stage.nodes:
            node.disarm()
        if (heard := stage.outcome(TWIN)) != SERVED:
            raise Misbehaved(f"afterwards: {heard}")
        stage.settles()


def _overload(
    name: str, how: str, got: str, run: Callable[[Path], None], *, fast: bool = True
) -> Alone:
    return Alone(name=name, how=how, part=Part.OVERLOAD, got={"outcome": got}, fast=fast, run=run)


OVERLOAD_SCENARIOS: tuple[Alone, ...] = (
    _overload(
        "a flood beside a quiet client",
        f"{FLOOD} requests at once from one key, for one seat and {QUEUE} places in its queue",
        "the quiet one: the answer, in its turn; the flood: the answer, or 503 "
        "`rate_limit_exceeded`, Retry-After, for those that lost their place to it or found none",
        flood,
        fast=False,
    ),
    _overload(
        "a fleet that fails under load",
        f"{MANY} requests for a model whose both replicas reset every connection",
        "503 `upstream_unreachable`, Retry-After; sent again are 10 in 10 s and a fifth of all; "
        "the log says so; the answer as soon as one is good again",
        everybody_fails_under_load,
    ),
)
