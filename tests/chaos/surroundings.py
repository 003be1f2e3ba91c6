"""What a gateway meets outside of requests: names, clocks, descriptors, and its own end."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.faulty_node import At, Fault, FaultyNode
from tests.chaos.jumping_clock import jump, with_jumping_clock
from tests.chaos.outcomes import CLOSED, SERVED, Outcome, event, outcome_of, refused
from tests.chaos.plays import drop_by_drop, in_body, reset, silence
from tests.chaos.scenario import Alone, Part
from tests.chaos.stage import CHAT, CHAT_STREAM, CHAT_WHOLE, TIMEOUTS, Face, Misbehaved, Stage
from tests.chaos.wire import Wire, crowd, post
from tests.fleet.processes import Daemon, Workbench, eventually, free_port, workbench, write_toml

DAY_SECS = 86400.0
MODEL, TWIN, AWAY = "lone/it", "twin/it", "away/it"


class Gateway:
    """Starts one gateway, in front of nodes of which some may never answer."""

    def __init__(self, folder: Path, bench: Workbench, descriptors: int = 0) -> None:
        self.folder, self.bench = folder, bench
        limit = f"ulimit -n {descriptors} && " if descriptors else ""
        self.begin = ["sh", "-c", f'{limit}exec "$@"', "sh"]
        self.clock = folder / "clock"

    def start(self, nodes: dict[str, str], **timeouts: float) -> Daemon:
        """Start it, and wait until it is ready, whatever its nodes are."""
        port, metrics = free_port(), free_port()
        models = [{"id": AWAY, "harness": "any", "vram_mb": 1, "pinned_on": ["c-away"]}]
        write_toml(self.folder / "models.toml", {"models": models})
        config = write_toml(
            self.folder / "cortex.toml",
            {
                "gateway": {
                    "listen": f"127.0.0.1:{port}",
                    "metrics_listen": f"127.0.0.1:{metrics}",
                },
                "neurons": [{"name": name, "endpoint": url} for name, url in nodes.items()],
                "observation": {"poll_secs": 0.2, "timeout_secs": 0.5},
                "timeouts": {**TIMEOUTS, **timeouts},
            },
        )
        argv = [sys.executable, "-m", "cortex_gateway", "serve", "-c", str(config)]
        url = f"http://127.0.0.1:{port}"
        daemon = Daemon("cortex", argv, self.folder / "cortex.log", url, "cortex.ready")
        self.bench.daemons.append(daemon)
        with_jumping_clock(daemon, self.clock)
        daemon.argv = [*self.begin, *daemon.argv]
        daemon.start()
        return daemon


@contextmanager
def two_nodes(
    folder: Path, descriptors: int = 0, **timeouts: float
) -> Iterator[tuple[Stage, Gateway]]:
    """A gateway in front of the node that fails on demand and the one that does not."""
    with (
        FaultyNode([MODEL, TWIN]) as faulty,
        FaultyNode([TWIN]) as good,
        workbench(folder) as bench,
    ):
        gateway = Gateway(folder, bench, descriptors)
        cortex = gateway.start({"a-faulty": faulty.url, "b-good": good.url}, **timeouts)
        stage = Stage(bench, cortex, (faulty, good))
        for model in (MODEL, TWIN):
            eventually(lambda one=model: stage.outcome(one) == SERVED)  # type: ignore[misc]
        stage.sockets = stage.count_sockets()
        yield stage, gateway


def no_such_name(folder: Path) -> None:
    """A node whose name nobody knows: the others go on, and what it alone may hold is 503."""
    with FaultyNode([MODEL]) as node, workbench(folder) as bench:
        away = "http://no-such-machine.invalid:13131"
        cortex = Gateway(folder, bench).start({"a-here": node.url, "c-away": away})
        stage = Stage(bench, cortex, (node,))
        eventually(lambda: stage.outcome(MODEL) == SERVED)
        stage.sockets = stage.count_sockets()
        health = cortex.http.get(f"{cortex.url}/health").json()
        if (health["status"], health["missing"]) != ("degraded", ["c-away"]):
            raise Misbehaved(f"health says {health}")
        _expect(stage.outcome(AWAY, within=5.0), refused(503, "service_unavailable"))
        stage.settles()


def clock_jumps(folder: Path) -> None:
    """A day ahead and two days back, in the middle of streams, with an open circuit."""
    with two_nodes(folder, idle=2.0) as (stage, gateway):
        for secs in (DAY_SECS, -DAY_SECS, 0.0):
            stage.faulty.arm(Fault(At.REQUEST, drop_by_drop(0.02, 30)))
            with ThreadPoolExecutor(2) as pool:
                asking = [pool.submit(stage.outcome, MODEL, f) for f in (CHAT_WHOLE, CHAT_STREAM)]
                eventually(lambda: stage.faulty.busy == 2)
                jump(stage.cortex, gateway.clock, secs)
                for one in asking:
                    _expect(one.result(), SERVED)
            stage.faulty.arm(Fault(At.REQUEST, reset))
            for _ in range(4):
                _expect(stage.outcome(TWIN), SERVED)
                _expect(stage.outcome(MODEL), refused(503, "upstream_unreachable"))
            stage.faulty.disarm()
            stage.recovers(MODEL)
            stage.recovers(TWIN)
            stage.settles()
        lines = [line for line in stage.cortex.log() if "duration_ms" in line]
        if any(not 0 <= line["duration_ms"] < 10_000 for line in lines):
            raise Misbehaved("durations in the log jump with the clock")


def drain_is_cut(folder: Path) -> None:
    """SIGTERM with answers under way that outlast `drain`: a word to each, and the end."""
    with two_nodes(folder, drain=0.5, idle=30.0, first_byte=30.0) as (stage, _):
        stage.faulty.arm(Fault(At.REQUEST, in_body(lambda _: b"", silence)))

        def ask(face: Face) -> Outcome:
            return stage.outcome(MODEL, face, 5.0)

        with ThreadPoolExecutor(2) as pool:
            asking = [pool.submit(ask, face) for face in (CHAT_WHOLE, CHAT_STREAM)]
            eventually(lambda: stage.faulty.busy == 2)
            began = time.monotonic()
            stage.cortex.signal(signal.SIGTERM)
            _expect(asking[0].result(), refused(503, "shutting_down"))
            _expect(asking[1].result(), event("shutting_down"))
        if stage.cortex.wait() != 0 or time.monotonic() - began > 3.0:
            raise Misbehaved("the gateway did not end well, or not in time")
        eventually(lambda: stage.faulty.busy == 0)


def too_few_descriptors(folder: Path) -> None:
    """More connections than the gateway may have descriptors."""
    with two_nodes(folder, descriptors=256) as (stage, _), Wire(stage.cortex.url, 20.0) as early:
        with crowd(stage.cortex.url, 400):
            eventually(lambda: stage.count_sockets() > 180)
            early.send(post(CHAT, CHAT_WHOLE.body(MODEL), stage.request_id()))
            _expect(outcome_of(early.hear()), SERVED)
            with Wire(stage.cortex.url, 5.0) as late:
                late.send(post(CHAT, CHAT_WHOLE.body(MODEL), "late"))
                _expect(outcome_of(late.hear()), CLOSED)
        eventually(lambda: stage.outcome(MODEL, within=5.0) == SERVED, every=0.1)
        stage.forget()
        stage.settles()


def _expect(heard: Outcome, wanted: Outcome) -> None:
    if heard != wanted:
        raise Misbehaved(f"{heard} instead of {wanted}")


def _scene(
    name: str,
    how: str,
    got: str,
    run: Callable[[Path], None],
    *,
    part: Part = Part.CLOCK,
    fast: bool = True,
) -> Alone:
    return Alone(name=name, how=how, part=part, got={"outcome": got}, fast=fast, run=run)


SURROUNDING_SCENARIOS: tuple[Alone, ...] = (
    _scene(
        "a drain that is cut",
        "SIGTERM, and answers that outlast `drain`",
        "whole: 503 `shutting_down`, Retry-After; streamed: error event `shutting_down`",
        drain_is_cut,
        part=Part.PROCESS,
    ),
    _scene(
        "more connections than descriptors",
        "400, of 256",
        "those connected: the answer; newcomers: closed, until some leave",
        too_few_descriptors,
        part=Part.PROCESS,
    ),
    _scene(
        "a name that does not resolve",
        "a node's endpoint is no machine's name",
        "other nodes' models: the answer; its own: 503 `service_unavailable`, Retry-After",
        no_such_name,
    ),
    _scene(
        "a clock that jumps",
        "a day ahead, a day back, in the middle of answers and with open circuits",
        "the answer, each time; durations stay true; a circuit that opened before a jump back is "
        "tried again like any other",
        clock_jumps,
        fast=False,
    ),
)
