"""What a neuron and a cortex cost: one prompt asked of the engine, of the neuron and of cortex."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from tests.bench.asking import Client
from tests.bench.fleet import MODEL, Running, direct_engine, fleet
from tests.bench.hops_tables import HOPS, Sample, is_calm, tables
from tests.bench.machine import CALM_CORES, Meter
from tests.bench.reporting import Report

METHOD = """\
Rounds after a warm-up, each asking all three in turn, the first one rotating; one blocking
keep-alive client for all, streamed, temperature 0, seed 1. warm: the same prompt each time,
answered with {tokens} tokens, the prompt from the cache. cold: another first word each time, so
that nothing is cached. `engine` is a second engine process of the same harness, file and options;
the one not asked is idle. Differences are taken within a round, then their median. others: cores
that strangers (and the hypervisor) took during a request. A round is calm when that stayed
below {calm}; rounds are repeated until {rounds} were calm, at most {most} in all."""
CALM_WITHIN_SECS = 10.0
COLD_TOKENS = 4
TEXT = (
    "Tell a long and quiet story about the keeper of a lighthouse who writes down the weather of "
    "every day, and about the ship that comes by only once a year. Name the birds, the winds and "
    "the colours of the sea, and let the story end as it began."
)


def measure(path: Path, *, rounds: int, tokens: int, options: dict[str, Any]) -> Report:
    """Measure all three hops."""
    with fleet(path, options) as running:
        running.load()
        samples = asyncio.run(_compare(running, rounds, tokens))
    chosen = ", ".join(f"{key} {value}" for key, value in options.items()) or "the defaults"
    return Report(
        name=f"hops, engine options: {chosen}",
        method=METHOD.format(rounds=rounds, most=2 * rounds, tokens=tokens, calm=CALM_CORES),
        tables=tables(samples),
        samples=[asdict(one) for one in samples],
    )


async def _compare(running: Running, rounds: int, tokens: int) -> list[Sample]:
    async with direct_engine(running) as engine:
        clients = {
            "engine": Client(engine.url, engine.headers),
            "neuron": Client(running.neuron.url, {}),
            "cortex": Client(running.cortex.url, {}),
        }
        meter = Meter(
            {
                "engine": engine.pid,
                "neuron's engine": running.engine_pid(),
                "neuron": running.neuron.pid,
                "cortex": running.cortex.pid,
            }
        )
        try:
            return await asyncio.to_thread(_rounds, clients, meter, rounds, tokens)
        finally:
            for client in clients.values():
                client.close()


def _rounds(clients: Mapping[str, Client], meter: Meter, rounds: int, tokens: int) -> list[Sample]:
    names, samples = count(1000), list[Sample]()
    for client in clients.values():
        for body in (_warm(tokens), _warm(tokens), _cold(next(names))):
            client.ask(body)
    for kind in ("warm", "cold"):
        calm = 0
        for number in range(2 * rounds):
            if calm == rounds:
                break
            turn = number % len(HOPS)
            meter.wait_for_calm(CALM_WITHIN_SECS)
            together = list[Sample]()
            for hop in (*HOPS[turn:], *HOPS[:turn]):
                body = _warm(tokens) if kind == "warm" else _cold(next(names))
                meter.begin()
                asked = clients[hop].ask(body)
                others, spent = meter.others(), meter.spent()
                together.append(
                    Sample(
                        kind=kind, round=number, hop=hop, others=others, spent=spent, asked=asked
                    )
                )
            calm += is_calm(together)
            samples += together
    return samples


def _warm(tokens: int) -> dict[str, Any]:
    return _body(tokens, "Story")


def _cold(name: int) -> dict[str, Any]:
    return _body(COLD_TOKENS, str(name))


def _body(tokens: int, word: str) -> dict[str, Any]:
    messages = [
        {"role": "system", "content": f"{word}: you are a teller of tales."},
        {"role": "user", "content": TEXT},
    ]
    same = {"temperature": 0, "seed": 1, "ignore_eos": True}
    return {"model": MODEL, "messages": messages, "max_tokens": tokens, **same}
