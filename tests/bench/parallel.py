"""What a node costs when it is full: many streams at once, of the engine alone and through it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from cortex_neuron.processes import processor_secs
from tests.bench.asking import Client
from tests.bench.fleet import MODEL, Running, direct_engine, fleet
from tests.bench.reporting import Report, Table, spread

METHOD = """\
{streams} streams at once, {tokens} tokens each, temperature 0, prompts of their own. Rounds ask
the engine and the node in turn, the first one alternating; `engine` is a second engine process of
the same harness, file and options, and the one not asked is idle. Throughput is all tokens over the
time from the first request to the last byte. Ratios are taken within a round. Control routes are
asked one after another on one connection, {pause_ms:g} ms apart, in rounds of their own, while as
many streams run through the node."""
ROUTES = ("/health", "/models", "/discovery", "/version", "/metrics")
PAUSE_SECS = 0.005
GOAL_RATIO, GOAL_MS = 0.98, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: tokens a second of each, and processor time while the node was asked."""

    number: int
    engine: float
    neuron: float
    node_secs: float
    engine_secs: float

    @property
    def ratio(self) -> float:
        """What part of the engine's throughput comes through the node."""
        return self.neuron / self.engine

    @property
    def share(self) -> float:
        """What part of all processor time the node took: what it costs where no core is idle."""
        return self.node_secs / (self.node_secs + self.engine_secs)


def measure(path: Path, *, rounds: int, streams: int, tokens: int) -> Report:
    """Measure throughput and control routes."""
    options = {"parallel": streams, "context": 1024}
    with fleet(path, options) as running:
        running.load()
        samples, control, idle = asyncio.run(_compare(running, rounds, streams, tokens))
    ratios = [one.ratio for one in samples]
    share = 100 * median(one.share for one in samples)
    columns = ("", "median", "smallest", "largest")
    throughput = Table(
        title=f"tokens/s of {streams} streams",
        columns=columns,
        rows=[
            ("engine", *spread([one.engine for one in samples])),
            ("through the node", *spread([one.neuron for one in samples])),
            ("ratio, %", *spread([100 * one for one in ratios])),
            ("the node's part of processor time, %", *spread([100 * o.share for o in samples])),
        ],
    )
    routes = Table(
        title="control routes, ms",
        columns=("", "asked", "median", "p99", "largest"),
        rows=[(f"{streams} streams: {name}", *_tail(control[name])) for name in (*ROUTES, "all")]
        + [("idle: all", *_tail(idle["all"]))],
    )
    verdict = Table(
        title="goals",
        columns=("", "goal", "measured", "met"),
        rows=[
            _goal("throughput, %", ">=", 100 * GOAL_RATIO, 100 * median(ratios)),
            _goal("the node's part of processor time, %", "<=", 100 * (1 - GOAL_RATIO), share),
            _goal("control p99, ms", "<=", GOAL_MS, _percentile(control["all"], 0.99)),
        ],
    )
    return Report(
        name=f"parallel, {streams} streams",
        method=METHOD.format(streams=streams, tokens=tokens, pause_ms=PAUSE_SECS * 1000),
        tables=(throughput, routes, verdict),
        samples=[asdict(one) for one in samples],
    )


Latencies = dict[str, list[float]]


async def _compare(
    running: Running, rounds: int, streams: int, tokens: int
) -> tuple[list[Round], Latencies, Latencies]:
    async with direct_engine(running) as engine:
        asked: dict[str, Callable[[], float]] = {
            "engine": lambda: _throughput(engine.url, dict(engine.headers), streams, tokens),
            "neuron": lambda: _throughput(running.neuron.url, {}, streams, tokens),
        }
        for ask in asked.values():
            await asyncio.to_thread(ask)
        samples = list[Round]()
        for number in range(rounds):
            names = list(asked)[:: 1 if number % 2 else -1]
            got, spent = dict[str, float](), (0.0, 0.0)
            for name in names:
                before = _processor_secs(running)
                got[name] = await asyncio.to_thread(asked[name])
                if name == "neuron":
                    node, its_engine = _processor_secs(running)
                    spent = node - before[0], its_engine - before[1]
            samples.append(Round(number=number, **got, node_secs=spent[0], engine_secs=spent[1]))
    control: Latencies = {name: [] for name in (*ROUTES, "all")}
    for _ in range(max(1, rounds // 2)):
        with _asking_control(running, control):
            await asyncio.to_thread(_throughput, running.neuron.url, {}, streams, tokens)
    idle: Latencies = {name: [] for name in (*ROUTES, "all")}
    with _asking_control(running, idle):
        await asyncio.sleep(2)
    return samples, control, idle


@contextmanager
def _asking_control(running: Running, into: Latencies) -> Iterator[None]:
    """Ask control routes in a thread for as long as the block lasts."""
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=running.neuron.url, trust_env=False) as client:
            while not over.is_set():
                for route in ROUTES:
                    began = time.perf_counter()
                    client.get(route).raise_for_status()
                    took = (time.perf_counter() - began) * 1000
                    into[route].append(took)
                    into["all"].append(took)
                    over.wait(PAUSE_SECS)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _processor_secs(running: Running) -> tuple[float, float]:
    """Return the processor time that the node and its engine have used so far."""
    node, its_engine = (
        processor_secs(pid) or 0.0 for pid in (running.neuron.pid, running.engine_pid())
    )
    return node, its_engine


def _throughput(url: str, headers: dict[str, str], streams: int, tokens: int) -> float:
    """Return tokens a second of so many streams at once."""
    clients = [Client(url, headers) for _ in range(streams)]
    try:
        with ThreadPoolExecutor(streams) as pool:
            began = time.perf_counter()
            answers = list(
                pool.map(lambda pair: pair[1].ask(_body(pair[0], tokens)), enumerate(clients))
            )
            whole: int = sum(one.tokens for one in answers)
            return whole / (time.perf_counter() - began)
    finally:
        for client in clients:
            client.close()


def _body(number: int, tokens: int) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Tell story number {number} of the sea."}],
        "max_tokens": tokens,
        "temperature": 0,
        "seed": 1,
        "ignore_eos": True,
    }


def _goal(name: str, sign: str, goal: float, measured: float) -> tuple[str | float, ...]:
    met = measured >= goal if sign == ">=" else measured <= goal
    return name, f"{sign} {goal:g}", measured, "yes" if met else "no"


def _tail(values: list[float]) -> tuple[str | int, ...]:
    return (
        len(values),
        f"{median(values):.2f}",
        f"{_percentile(values, 0.99):.2f}",
        f"{max(values):.2f}",
    )


def _percentile(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]
