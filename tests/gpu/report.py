"""The report of a run in Markdown: where, with what, and every verdict."""

from collections import Counter
from collections.abc import Mapping, Sequence

from tests.gpu.verdicts import Outcome, Verdict, all_passed


def markdown(facts: Mapping[str, str], verdicts: Sequence[Verdict]) -> str:
    """Return the report. `facts` are the machine, the versions and the date, by their names."""
    return "\n".join(
        [
            "# GPU check",
            "",
            summary(verdicts),
            "",
            *_table(("", ""), [(name, fact) for name, fact in facts.items()]),
            "",
            *_table(
                ("check", "verdict", "found", "s"),
                [(v.name, v.outcome.value, v.facts, f"{v.secs:.0f}") for v in verdicts],
            ),
            "",
        ]
    )


def summary(verdicts: Sequence[Verdict]) -> str:
    """Return the whole in one sentence."""
    count = Counter(verdict.outcome for verdict in verdicts)
    told = ", ".join(f"{count[one]} {one.value}" for one in Outcome)
    return f"{'Passed' if all_passed(verdicts) else 'Not passed'}: {told}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(_cell(one) for one in line)} |" for line in lines]


def _cell(text: str) -> str:
    """Return text that stays in its cell, whatever an error had in it."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
