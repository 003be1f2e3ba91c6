"""All trials of one agent, inside a network namespace; each is printed as a line of JSON."""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from orjson import loads

from tests.agents import recording, trial
from tests.agents.claude_code import CLAUDE_CODE
from tests.agents.codex import CODEX
from tests.agents.offline import bring_up_loopback
from tests.agents.scripted_node import FINAL_TEXT, FIRST_TEXT, Fault, Kind, turn_events
from tests.agents.trial import Trial
from tests.agents.wiretap import Seen

AGENTS = {agent.name: agent for agent in (CLAUDE_CODE, CODEX)}
#: Makes Claude Code count what its prompt is made of.
_COUNTING_PROMPT = "/context"


def main(
    name: str,
    packages: Path,
    *,
    record: Annotated[Path | None, typer.Option()] = None,
    with_faults: Annotated[bool, typer.Option("--faults/--no-faults")] = True,
) -> None:
    """Run the trials of the agent called `name`, installed in `packages`."""
    bring_up_loopback()
    agent = AGENTS[name]
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as made:
        folder = Path(made)
        plain = trial.run(agent, packages, folder / "plain")
        _tell(plain)
        if record is not None:
            recording.write(record, name, folder / "plain", _turns(plain))
        if record is not None and agent is CLAUDE_CODE:
            counting = trial.run(agent, packages, folder / "counting", prompt=_COUNTING_PROMPT)
            recording.write(record, name, folder / "counting", _counts(counting))
        for number, fault in enumerate(faults() if with_faults else ()):
            _tell(trial.run(agent, packages, folder / f"fault-{number}", fault))


def faults() -> Iterator[Fault]:
    """Yield a fault of each kind at each boundary between events, then some that last longer."""
    turns = {1: turn_events(FIRST_TEXT, ("tool", "{}")), 2: turn_events(FINAL_TEXT)}
    for turn, events in turns.items():
        yield Fault(Kind.BUSY, turn)
        for kind in (Kind.LOST, Kind.ERROR, Kind.SILENT):
            for sent in range(len(events)):
                yield Fault(kind, turn, sent)
    yield Fault(Kind.BUSY, 2, times=3)
    yield Fault(Kind.LOST, 1, times=3)
    yield Fault(Kind.LOST, 1, sent=2, times=3)
    yield Fault(Kind.ERROR, 2, sent=2, times=3)


def _turns(plain: Trial) -> Iterator[tuple[str, Seen]]:
    """Yield the requests of a run without faults that are worth keeping."""
    turns = iter(("first-turn", "tool-result"))
    for seen in plain.seen:
        if seen.method == "GET":
            yield "models", seen
        elif seen.method == "POST":
            yield next(turns), seen


def _counts(counting: Trial) -> Iterator[tuple[str, Seen]]:
    """Yield the smallest request for a count, and the smallest of those with tools."""
    counts = [one for one in counting.seen if one.path.startswith("/v1/messages/count_tokens")]
    counts.sort(key=lambda one: len(one.body))
    yield "count", counts[0]
    yield "count-tool", next(one for one in counts if loads(one.body)["tools"])


def _tell(done: Trial) -> None:
    sys.stdout.write(json.dumps(done.as_json()) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
