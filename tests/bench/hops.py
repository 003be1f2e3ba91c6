"""What a neuron and a cortex cost: one prompt asked of the engine, of the neuron and of cortex."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.asking import Asked, Client
from tests.bench.fleet import MODEL, Running, direct_engine, fleet
from tests.bench.machine import Bystanders, family
from tests.bench.reporting import Cell, Report, Table, spread

HOPS = ("engine", "neuron", "cortex")
METHOD = """\
{rounds} rounds after a warm-up, each asking all three in turn, the first one rotating; one blocking
keep-alive client, streamed, temperature 0, seed 1. warm: the same prompt each time, {tokens}
tokens, from the prompt cache. cold: another first word each time, so that no prompt is cached,
{cold_tokens} tokens.
`engine` is a second engine process of the same harness, file and options; the one not asked is
idle. Differences are taken within a round, then their median. others: cores that strangers kept
busy in the round; calm rounds are those where it was below {calm} in all three."""
CALM_CORES = 0.2
CALM_WITHIN_SECS = 10.0
COLD_TOKENS = 16
TEXT = (
    "Tell a long and quiet story about the keeper of a lighthouse who writes down the weather of "
    "every day, and about the ship that comes by only once a year. Name the birds, the winds and "
    "the colours of the sea, and let the story end as it began."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request of one round."""

    kind: str
    round: int
    hop: str
    others: float
    asked: Asked


def measure(path: Path, *, rounds: int, tokens: int, options: dict[str, Any]) -> Report:
    """Measure all three hops."""
    with fleet(path, options) as running:
        running.load()
        samples = asyncio.run(_compare(running, rounds, tokens))
    method = METHOD.format(rounds=rounds, tokens=tokens, cold_tokens=COLD_TOKENS, calm=CALM_CORES)
    chosen = ", ".join(f"{key} {value}" for key, value in options.items()) or "the defaults"
    return Report(
        name=f"hops, engine options: {chosen}",
        method=method,
        tables=[table for kind in ("warm", "cold") for table in _tables(kind, samples)],
        samples=[{**asdict(one), "asked": asdict(one.asked)} for one in samples],
    )


async def _compare(running: Running, rounds: int, tokens: int) -> list[Sample]:
    async with direct_engine(running) as engine:
        clients = {
            "engine": Client(engine.url, engine.headers),
            "neuron": Client(running.neuron.url, {}),
            "cortex": Client(running.cortex.url, {}),
        }
        ours = family(running.neuron.pid, running.cortex.pid, engine.pid)
        try:
            return await asyncio.to_thread(_rounds, clients, ours, rounds, tokens)
        finally:
            for client in clients.values():
                client.close()


def _rounds(
    clients: Mapping[str, Client], ours: set[int], rounds: int, tokens: int
) -> list[Sample]:
    others, names, samples = Bystanders(ours), count(1000), list[Sample]()
    for client in clients.values():
        for _ in range(2):
            client.ask(_warm(tokens))
        client.ask(_cold(next(names)))
    for number in range(rounds):
        turn = number % len(HOPS)
        for kind in ("warm", "cold"):
            # The cold prompt took the warm one's place in the cache: bring it back, unmeasured.
            others.wait_for_calm(CALM_WITHIN_SECS)
            for hop in (*HOPS[turn:], *HOPS[:turn]):
                body = _warm(tokens) if kind == "warm" else _cold(next(names))
                others.begin()
                asked = clients[hop].ask(body)
                samples.append(
                    Sample(kind=kind, round=number, hop=hop, others=others.cores(), asked=asked)
                )
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


def _tables(kind: str, samples: Sequence[Sample]) -> list[Table]:
    mine = [one for one in samples if one.kind == kind]
    rounds = [{one.hop: one for one in mine if one.round == n} for n in {s.round for s in mine}]
    calm = [r for r in rounds if all(one.others < CALM_CORES for one in r.values())]
    noise = [one.others for one in mine]
    absolute = [_absolute(hop, [r[hop].asked for r in rounds]) for hop in HOPS]
    return [
        Table(
            title=f"{kind} prompt: median, smallest, largest (others: median {median(noise):.2f}, "
            f"largest {max(noise):.2f} cores)",
            columns=("asked", *("first token ms", "", ""), *("tokens/s", "", ""), "cached"),
            rows=absolute,
        ),
        Table(
            title=f"{kind} prompt: added within a round",
            columns=("from, to", *("first token ms", "", ""), *("tokens/s", "", ""), "rounds"),
            rows=[
                _added(some, one, other, label)
                for some, label in ((rounds, ""), (calm, ", calm"))
                for one, other in (("engine", "neuron"), ("neuron", "cortex"), ("engine", "cortex"))
            ],
        ),
    ]


def _absolute(hop: str, asked: Sequence[Asked]) -> tuple[Cell, ...]:
    first = spread([one.first_token_ms for one in asked])
    rate = spread([one.tokens_per_second for one in asked])
    return (hop, *first, *rate, "/".join(sorted({str(one.cached) for one in asked})))


def _added(
    rounds: Sequence[Mapping[str, Sample]], one: str, other: str, label: str
) -> tuple[Cell, ...]:
    pairs = [(r[one].asked, r[other].asked) for r in rounds]
    first = spread([b.first_token_ms - a.first_token_ms for a, b in pairs])
    rate = spread([(b.tokens_per_second / a.tokens_per_second - 1) * 100 for a, b in pairs], " %")
    return (f"{one} → {other}{label}", *first, *rate, len(pairs))
