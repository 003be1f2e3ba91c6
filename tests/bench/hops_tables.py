"""Samples of the three hops as tables: what was seen, what was added, what it cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from tests.bench.asking import Asked
from tests.bench.machine import CALM_CORES
from tests.bench.reporting import Cell, Table, spread

HOPS = ("engine", "neuron", "cortex")
_STEPS = (("engine", "neuron"), ("neuron", "cortex"), ("engine", "cortex"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request of one round. `spent`: processor seconds of each process meanwhile."""

    kind: str
    round: int
    hop: str
    others: float
    spent: Mapping[str, float]
    asked: Asked


Round = Mapping[str, Sample]


def is_calm(together: Iterable[Sample]) -> bool:
    """Return whether nobody else worked during a round."""
    return all(one.others < CALM_CORES for one in together)


def tables(samples: Sequence[Sample]) -> list[Table]:
    """Return every table of a run."""
    made = []
    for kind in ("warm", "cold"):
        mine = [one for one in samples if one.kind == kind]
        rounds = [{s.hop: s for s in mine if s.round == n} for n in sorted({s.round for s in mine})]
        calm = [one for one in rounds if is_calm(one.values())]
        made += [_seen(kind, rounds, calm), _added(kind, rounds, calm)]
        if kind == "warm":
            made.append(_cost(calm or rounds))
    return made


def _seen(kind: str, rounds: Sequence[Round], calm: Sequence[Round]) -> Table:
    noise = [one.others for together in rounds for one in together.values()]
    return Table(
        title=f"{kind}: median, least, most of {len(calm)} calm of {len(rounds)} rounds "
        f"(others: median {median(noise):.2f}, most {max(noise):.2f} cores)",
        columns=("asked", "first token ms", "", "", "tokens/s", "", "", "cached"),
        rows=[_row(hop, [one[hop].asked for one in calm or rounds]) for hop in HOPS],
    )


def _row(hop: str, asked: Sequence[Asked]) -> tuple[Cell, ...]:
    first = spread([one.first_token_ms for one in asked])
    rate = spread([one.tokens_per_second for one in asked])
    return (hop, *first, *rate, "/".join(sorted({str(one.cached) for one in asked})))


def _added(kind: str, rounds: Sequence[Round], calm: Sequence[Round]) -> Table:
    return Table(
        title=f"{kind}: added within a round",
        columns=("from, to", "first token ms", "", "", "tokens/s", "", "", "rounds"),
        rows=[
            _difference(some, one, other, label)
            for some, label in ((calm, "calm"), (rounds, "all"))
            for one, other in _STEPS
        ],
    )


def _difference(rounds: Sequence[Round], one: str, other: str, label: str) -> tuple[Cell, ...]:
    pairs = [(r[one].asked, r[other].asked) for r in rounds]
    first = spread([b.first_token_ms - a.first_token_ms for a, b in pairs])
    rate = spread([(b.tokens_per_second / a.tokens_per_second - 1) * 100 for a, b in pairs], " %")
    return (f"{one} → {other}, {label}", *first, *rate, len(pairs))


def _cost(rounds: Sequence[Round]) -> Table:
    names = tuple(rounds[0][HOPS[0]].spent)
    return Table(
        title="warm: processor milliseconds of each process during one request, mean",
        columns=("asked", *names),
        rows=[
            (hop, *(mean(one[hop].spent[name] for one in rounds) * 1000 for name in names))
            for hop in HOPS
        ],
    )
