"""`make bench`: measure what is named; without a name, all but what takes long or is fetched first.

    make bench ARGS="hops --rounds 18 --threads 1,2"
    make bench ARGS="memory startup --json" > measured.json
    make bench ARGS="peers"       beside nginx, vllm-router, sglang-router and LiteLLM, which are
                                  installed from their packages into build/peers
    make bench ARGS="flatness"    memory over 200,000 requests

Everything runs on loopback, ends by itself and leaves nothing behind but what it installed.
"""

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tests.bench import dialects, hops, memory, parallel, router, simulation, startup
from tests.bench.machine import header
from tests.bench.peers import flatness
from tests.bench.peers import measuring as peers
from tests.bench.reporting import Report
from tests.demo_model import demo_model_path


class Measurement(StrEnum):
    """What can be measured."""

    HOPS = "hops"
    PARALLEL = "parallel"
    MEMORY = "memory"
    STARTUP = "startup"
    ROUTER = "router"
    SIMULATION = "simulation"
    DIALECTS = "dialects"
    PEERS = "peers"
    FLATNESS = "flatness"


_ONLY_WHEN_NAMED = frozenset({Measurement.PEERS, Measurement.FLATNESS})


def main(
    measurements: Annotated[list[Measurement] | None, typer.Argument()] = None,
    *,
    rounds: Annotated[int, typer.Option(min=1, help="hops, parallel: after warm-up.")] = 12,
    tokens: Annotated[int, typer.Option(min=2, help="hops, parallel: of a warm answer.")] = 128,
    streams: Annotated[int, typer.Option(min=1, help="parallel: streams at once.")] = 8,
    threads: Annotated[
        str, typer.Option(help="hops: engine threads, as in 1,2. Default: the node's.")
    ] = "",
    requests: Annotated[int, typer.Option(min=1, help="memory: requests in between.")] = 50,
    starts: Annotated[int, typer.Option(min=1, help="startup: how often `cortex up`.")] = 3,
    simulated: Annotated[
        int, typer.Option(min=0, help="simulation: requests over 1,000 nodes; 0: only the growth.")
    ] = 1_000_000,
    peer_rounds: Annotated[int, typer.Option(min=1, help="peers: rounds.")] = 3,
    secs: Annotated[float, typer.Option(min=1, help="peers: seconds of each load.")] = 3.0,
    small_requests: Annotated[int, typer.Option(min=100, help="flatness: requests.")] = 200_000,
    plots: Annotated[Path, typer.Option(help="peers, flatness: folder for the pictures.")] = Path(
        "build/bench"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Measure what Cortex costs on this machine."""
    path = demo_model_path()

    def reports() -> Iterator[Report]:
        made: dict[Measurement, Callable[[], Iterable[Report]]] = {
            Measurement.HOPS: lambda: _hops(path, rounds, tokens, threads),
            Measurement.PARALLEL: lambda: [
                parallel.measure(path, rounds=rounds, streams=streams, tokens=tokens)
            ],
            Measurement.MEMORY: lambda: [memory.measure(path, requests=requests)],
            Measurement.STARTUP: lambda: [startup.measure(starts=starts)],
            Measurement.ROUTER: lambda: [router.measure()],
            Measurement.SIMULATION: lambda: [simulation.measure(requests=simulated)],
            Measurement.DIALECTS: lambda: [dialects.measure()],
            Measurement.PEERS: lambda: [
                peers.measure(rounds=peer_rounds, secs=secs, plots=plots),
            ],
            Measurement.FLATNESS: lambda: [
                flatness.measure(requests=small_requests, plots=plots),
            ],
        }
        for one in measurements or [one for one in Measurement if one not in _ONLY_WHEN_NAMED]:
            yield from made[one]()

    about = {**header(), "model": path.name}
    if as_json:
        print(json.dumps({**about, "reports": [one.as_json() for one in reports()]}, indent=2))
        return
    print("\n".join(f"{name:9} {value}" for name, value in about.items()), flush=True)
    for one in reports():
        print(f"\n{one.text()}", flush=True)


def _hops(path: Path, rounds: int, tokens: int, threads: str) -> Iterator[Report]:
    for number in threads.split(","):
        options = {"threads": int(number)} if number else {}
        yield hops.measure(path, rounds=rounds, tokens=tokens, options=options)


# Asked to end, end the daemons too.
signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
typer.run(main)
