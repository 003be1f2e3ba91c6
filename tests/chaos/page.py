"""The table of faults and outcomes, as the page beside the gateway has it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.chaos.scenario import Part, Scenario

PATH = Path(__file__).parents[2] / "apps" / "cortex_gateway" / "FAULTS.md"

HEAD = """\
# What clients get when things break

`python -m tests.chaos` breaks a gateway, its nodes and its clients in every way listed here and
checks what each client got; with `--write` it writes this page. After each fault it also checks
that a good request is served within 2 s (10 s where a process has to start again), that nobody is
counted in flight any more on the gateway or a node, that no socket is left over, and that each
request has exactly one last line in the gateway's log; metrics count as many. Nobody waits beyond
the limits in `[timeouts]`.

Outcomes are those of OpenAI's routes. Anthropic's clients get the same status in their envelope
(503 is `overloaded_error`, 504 `timeout_error`, 502 `api_error`), and the same end of a stream as
an `error` event. `Retry-After` is there if and only if trying again can help.
"""
NOTES = {
    Part.NODE: """\
*Whole* and *streamed* are what a client gets when nobody else has the model. Before its first byte
an answer may come from another replica; after it, never. A stream that opened while its client
waited (`hold_headers_secs`) can only end in an event.
""",
    Part.CLIENT: """\
The node and the model are well; what matters is that everybody else notices nothing.
""",
    Part.BREAKER: """\
Two replicas of one model. A circuit opens after three failures of the replica itself in a row; a
replica whose circuit is open is still asked rather than nobody.
""",
    Part.OVERLOAD: """\
A client is told apart by its key and its address. Those that wait for a seat take turns; a full
queue makes room for who has less in it.
""",
    Part.PROCESS: """\
Real daemons, most of them with a real model; a whole and a streamed answer are under way.
""",
}


def page(scenarios: Sequence[Scenario]) -> str:
    """Return the whole page."""
    return HEAD + "".join(f"\n{block}" for part in Part for block in _part(part, scenarios))


def _part(part: Part, scenarios: Sequence[Scenario]) -> Iterator[str]:
    rows = [one for one in scenarios if one.part is part]
    if not rows:
        return
    columns = ["fault", "how it is made", *rows[0].got]
    yield f"## {part.value}\n"
    if part in NOTES:
        yield NOTES[part]
    lines = [columns, ["---"] * len(columns)]
    lines += [[one.name, _how(one), *one.got.values()] for one in rows]
    yield "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _how(scenario: Scenario) -> str:
    return scenario.how + (f" (**not yet**: {scenario.not_yet})" if scenario.not_yet else "")
