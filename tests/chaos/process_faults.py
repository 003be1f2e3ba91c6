"""Real daemons killed, frozen and asked to leave, with a real model behind them."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.chaos.jumping_clock import jump, with_jumping_clock
from tests.chaos.outcomes import Kind, Outcome
from tests.chaos.scenario import Alone, Part
from tests.chaos.stage import ENDINGS, SPARE_SOCKETS, Misbehaved
from tests.demo_model import demo_model_path
from tests.fleet.conversations import Streamed, Talk, ask, entry, in_flight, status
from tests.fleet.processes import Daemon, Workbench, eventually, workbench

STORY: dict[str, Any] = {"text": "Tell a long story about a lighthouse.", "max_tokens": 450}
SHORT_STORY: dict[str, Any] = {"text": "Tell a story.", "max_tokens": 100}
LIMITS = {"first_byte": 4.0, "idle": 1.5, "connect": 0.5, "hold": 0.5, "drain": 2.0}


@dataclass(frozen=True, slots=True)
class Fleet:
    """One real node and the gateways in front of it."""

    bench: Workbench
    neuron: Daemon
    cortexes: tuple[Daemon, ...]
    sockets: dict[str, int]

    @property
    def cortex(self) -> Daemon:
        """The first gateway."""
        return self.cortexes[0]

    def engine(self) -> psutil.Process:
        """The node's only engine."""
        (engine,) = [
            one
            for one in self.neuron.descendants()
            if "cortex_neuron.llamacpp.engine" in one.cmdline()
        ]
        return engine

    def is_served_again(self, within: float = 10.0) -> None:
        """Check that a good request is served, and that nobody and nothing is left over."""
        eventually(lambda: ask(self.cortex, "demo").status_code == 200, within=within, every=0.2)
        eventually(lambda: in_flight(self.neuron, "demo") == 0, within=2.0)
        for cortex in self.cortexes:
            ended = [line["request_id"] for line in cortex.log() if line.get("event") in ENDINGS]
            if len(ended) != len(set(ended)):
                raise Misbehaved("a request has two last lines in a gateway's log")
            if cortex.process is None or cortex.process.poll() is not None:
                continue
            requests = cortex.http.get(f"{cortex.url}/fleet").json()["requests"]
            if requests != {"in_flight": 0, "waiting": 0}:
                raise Misbehaved(f"in a gateway: {requests}")
            most = self.sockets[cortex.name] + SPARE_SOCKETS
            eventually(lambda one=cortex, most=most: sockets(one) <= most, what="sockets are left")  # type: ignore[misc]


@contextmanager
def fleet(folder: Path, cortexes: int = 1) -> Iterator[Fleet]:
    """A node with the small model loaded, and gateways in front of it."""
    with workbench(folder) as bench:
        neuron = bench.neuron(timeouts={"first_byte": 1.5, "idle": 1.5, "drain": 0.3})
        gateways = tuple(
            bench.cortex(
                {"n1": neuron.url},
                [entry("demo", demo_model_path()), entry("cold", demo_model_path())],
                name=f"cortex{number}",
                observation={"poll_secs": 0.5, "timeout_secs": 0.5},
                timeouts=LIMITS,
            )
            for number in range(cortexes)
        )
        for cortex in gateways:
            eventually(lambda one=cortex: ask(one, "demo").status_code == 200)  # type: ignore[misc]
        yield Fleet(bench, neuron, gateways, {one.name: sockets(one) for one in gateways})


def sockets(daemon: Daemon) -> int:
    """Return how many descriptors a daemon has open."""
    return psutil.Process(daemon.pid).num_fds()


@contextmanager
def both_ways(fleet: Fleet, what: Mapping[str, Any] = STORY) -> Iterator[list[Outcome]]:
    """Have a stream and a whole answer under way in the block, and their ends in the list."""
    ends: list[Outcome] = []
    talk = Talk(fleet.cortex, "demo", **what)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, fleet.cortex, "demo", **what)
        talk.under_way()
        eventually(lambda: in_flight(fleet.neuron, "demo") == 2)
        yield ends
        ends += [_of(asking.result()), _of_stream(talk.end())]


def _of(answer: httpx.Response) -> Outcome:
    if answer.status_code == 200:
        return Outcome(kind=Kind.SERVED)
    return Outcome(
        kind=Kind.REFUSED,
        status=answer.status_code,
        code=answer.json()["error"]["code"],
        retry="retry-after" in answer.headers,
    )


def _of_stream(told: Streamed) -> Outcome:
    if told.errors():
        return Outcome(kind=Kind.EVENT, code=told.errors()[-1]["code"])
    return Outcome(kind=Kind.SERVED if told.done else Kind.SILENT)


def _expect(ends: list[Outcome], *wanted: str) -> None:
    if (told := tuple(map(str, ends))) != wanted:
        raise Misbehaved(f"{told} instead of {wanted}")


def node_killed(folder: Path) -> None:
    """SIGKILL to the neuron."""
    with fleet(folder) as made:
        with both_ways(made) as ends:
            made.neuron.kill()
        _expect(
            ends, "503 `upstream_unreachable`, Retry-After", "error event `upstream_unreachable`"
        )
        _expect([_of(ask(made.cortex, "demo"))], "503 `upstream_unreachable`, Retry-After")
        made.neuron.start()
        made.is_served_again()


def node_frozen(folder: Path) -> None:
    """SIGSTOP to the neuron, in the middle of answers; and what newcomers hear meanwhile."""
    with fleet(folder) as made:
        with both_ways(made) as ends:
            made.neuron.signal(signal.SIGSTOP)
            began = time.monotonic()
        if time.monotonic() - began > LIMITS["first_byte"] + 1.0:
            raise Misbehaved("the clients waited for longer than `first_byte`")
        _expect(ends, "504 `upstream_timeout`", "error event `upstream_timeout`")
        eventually(lambda: ask(made.cortex, "demo").status_code == 503, every=0.2)
        made.neuron.signal(signal.SIGCONT)
        made.is_served_again()


def engine_killed(folder: Path) -> None:
    """SIGKILL to the engine."""
    with fleet(folder) as made:
        with both_ways(made) as ends:
            made.engine().kill()
        _expect(
            ends, "503 `upstream_unreachable`, Retry-After", "error event `upstream_unreachable`"
        )
        eventually(lambda: status(made.neuron, "demo") == "loaded")
        made.is_served_again()


def engine_frozen(folder: Path) -> None:
    """SIGSTOP to the engine: the node ends the wait."""
    with fleet(folder) as made:
        engine = made.engine()
        with both_ways(made) as ends:
            engine.suspend()
        _expect(ends, "504 `upstream_timeout`", "error event `upstream_timeout`")
        engine.resume()
        made.is_served_again()


def one_of_two_gateways_killed(folder: Path) -> None:
    """SIGKILL to a gateway: its seat comes back, the other's answer goes on."""
    with fleet(folder, cortexes=2) as made:
        here, there = made.cortexes
        talk, other = Talk(there, "demo", **STORY), Talk(here, "demo", **SHORT_STORY)
        talk.under_way()
        other.under_way()
        there.kill()
        eventually(lambda: in_flight(made.neuron, "demo") == 1, within=1.0)
        talk.end()
        if talk.broken is None:
            raise Misbehaved("the killed gateway's stream ended as if it were whole")
        _expect([_of_stream(other.end())], "the answer")
        made.is_served_again()


def one_of_two_gateways_frozen(folder: Path) -> None:
    """SIGSTOP to a gateway: the other goes on, and so does the frozen one's answer after it."""
    with fleet(folder, cortexes=2) as made:
        here, there = made.cortexes
        talk = Talk(there, "demo", **SHORT_STORY)
        talk.under_way()
        there.signal(signal.SIGSTOP)
        _expect([_of(ask(here, "demo"))], "the answer")
        there.signal(signal.SIGCONT)
        _expect([_of_stream(talk.end())], "the answer")
        made.is_served_again()


def two_gateways_one_cold_model(folder: Path) -> None:
    """Both want the same model at once: it is loaded once, and everybody is served."""
    with fleet(folder, cortexes=2) as made, ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, made.cortexes[number % 2], "cold") for number in range(8)]
        _expect([_of(one.result()) for one in asking], *["the answer"] * 8)
        loaded = [one for one in made.neuron.events("model.loaded") if one["model"] == "cold"]
        if len(loaded) != 1:
            raise Misbehaved(f"{len(loaded)} loads")
        made.is_served_again()


def node_killed_while_it_loads(folder: Path) -> None:
    """SIGKILL to a node that is loading the model that a client waits for."""
    with fleet(folder) as made, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, made.cortex, "cold")
        eventually(lambda: made.cortex.events("model.load"), every=0.002)
        made.neuron.kill()
        began = time.monotonic()
        told = _of(asking.result())
        if (told.status, told.retry) != (503, True) or time.monotonic() - began > 5.0:
            raise Misbehaved(f"{told} after {time.monotonic() - began:.1f} s")
        made.neuron.start()
        made.is_served_again()
        _expect([_of(ask(made.cortex, "cold"))], "the answer")


def nodes_clock_jumps(folder: Path) -> None:
    """A node's clock jumps a day ahead and back, in the middle of answers."""
    with fleet(folder) as made:
        with_jumping_clock(made.neuron, folder / "clock")
        for secs in (86400.0, -86400.0):
            eventually(lambda: ask(made.cortex, "demo").status_code == 200, every=0.2)
            with both_ways(made, SHORT_STORY) as ends:
                jump(made.neuron, folder / "clock", secs)
            _expect(ends, "the answer", "the answer")
        made.is_served_again()


def gateway_drains(folder: Path) -> None:
    """SIGTERM to a gateway with a short answer under way."""
    with fleet(folder) as made:
        talk = Talk(made.cortex, "demo", **SHORT_STORY)
        talk.under_way()
        made.cortex.signal(signal.SIGTERM)
        eventually(lambda: made.cortex.http.get(f"{made.cortex.url}/ready").status_code == 503)
        _expect([_of(ask(made.cortex, "demo"))], "503 `shutting_down`, Retry-After")
        _expect([_of_stream(talk.end())], "the answer")
        _ends_well(made)


def node_leaves(folder: Path) -> None:
    """SIGTERM to a node with answers under way that outlast its `drain`."""
    with fleet(folder) as made:
        with both_ways(made) as ends:
            made.neuron.signal(signal.SIGTERM)
        _expect(ends, "503 `shutting_down`, Retry-After", "error event `upstream_unreachable`")
        if (code := made.neuron.wait()) != 0:
            raise Misbehaved(f"the node ended with {code}")
        made.neuron.start()
        made.is_served_again()


def _ends_well(made: Fleet) -> None:
    if (code := made.cortex.wait()) != 0:
        raise Misbehaved(f"the gateway ended with {code}")
    eventually(lambda: in_flight(made.neuron, "demo") == 0, within=2.0)


def _process(name: str, how: str, got: str, run: Callable[[Path], None]) -> Alone:
    return Alone(name=name, how=how, part=Part.PROCESS, got={"outcome": got}, fast=False, run=run)


_LOST = "whole: 503 `upstream_unreachable`, Retry-After; streamed: error event"
_SILENT = "whole: 504 `upstream_timeout`; streamed: error event"
PROCESS_SCENARIOS: tuple[Alone, ...] = (
    _process("node killed", "SIGKILL in the middle of answers", _LOST, node_killed),
    _process(
        "node frozen",
        "SIGSTOP in the middle of answers",
        f"{_SILENT}; newcomers: 503; all is well after SIGCONT",
        node_frozen,
    ),
    _process(
        "node killed while it loads",
        "SIGKILL; a client waits for the model",
        "503, Retry-After, within 5 s",
        node_killed_while_it_loads,
    ),
    _process("engine killed", "SIGKILL in the middle of answers", _LOST, engine_killed),
    _process(
        "engine frozen",
        "SIGSTOP in the middle of answers",
        f"{_SILENT}; the seats are free",
        engine_frozen,
    ),
    _process(
        "one of two gateways killed",
        "SIGKILL, both have streams on one node",
        "its client: a broken connection, its seat free within 1 s; the other's: the answer",
        one_of_two_gateways_killed,
    ),
    _process(
        "one of two gateways frozen",
        "SIGSTOP in the middle of a stream, SIGCONT later",
        "the other's client: the answer; its own: the answer, later",
        one_of_two_gateways_frozen,
    ),
    _process(
        "two gateways, one cold model",
        "four requests to each, at once",
        "the answer, eight times, from one load",
        two_gateways_one_cold_model,
    ),
    _process(
        "a node's clock jumps",
        "a day ahead, a day back, in the middle of answers",
        "the answer, each time",
        nodes_clock_jumps,
    ),
    _process(
        "node leaves",
        "SIGTERM, and answers that outlast its `drain`",
        "whole: 503 `shutting_down`, Retry-After; streamed: error event `upstream_unreachable`",
        node_leaves,
    ),
    _process(
        "gateway leaves",
        "SIGTERM in the middle of an answer",
        "under way: the answer; newcomers: 503 `shutting_down`, Retry-After",
        gateway_drains,
    ),
)
