"""What became of each check, and what that makes of the whole."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

_Scene = TypeVar("_Scene")


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "pass"
    FAILED = "fail"
    NOT_APPLICABLE = "not applicable"


class NotApplicable(Exception):
    """This machine, or this model, cannot be asked; the message says why."""


class Failed(Exception):
    """It was asked, and is not as it should be; the message says what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One check: how it ended, and what was found or why not."""

    name: str
    outcome: Outcome
    facts: str
    secs: float = 0.0

    def line(self) -> str:
        """Return the verdict for a terminal."""
        return f"{self.outcome.value:>14}  {self.name}: {self.facts}"


class Check(NamedTuple, Generic[_Scene]):
    """A question by its name; `ask` returns what was found, or raises."""

    name: str
    ask: Callable[[_Scene], str]


def judge(
    scene: _Scene, checks: Sequence[Check[_Scene]], clock: Callable[[], float]
) -> Iterator[Verdict]:
    """Yield the verdict of each check as it ends. One that breaks has failed, and ends nothing."""
    for name, ask in checks:
        began = clock()
        try:
            outcome, facts = Outcome.PASSED, ask(scene)
        except NotApplicable as reason:
            outcome, facts = Outcome.NOT_APPLICABLE, str(reason)
        except Failed as problem:
            outcome, facts = Outcome.FAILED, str(problem)
        except Exception as error:  # noqa: BLE001  # whatever broke: the others are still asked
            outcome, facts = Outcome.FAILED, f"{type(error).__name__}: {error}"
        yield Verdict(name=name, outcome=outcome, facts=facts, secs=clock() - began)


def all_passed(verdicts: Sequence[Verdict]) -> bool:
    """Tell whether every check that applies has passed, and at least one has."""
    outcomes = {verdict.outcome for verdict in verdicts}
    return Outcome.PASSED in outcomes and Outcome.FAILED not in outcomes


def within(reckoned: float, found: float, part: float) -> bool:
    """Tell whether `reckoned` is off by no more than `part` of what was found."""
    return abs(reckoned - found) <= part * found


def off(reckoned: float, found: float) -> str:
    """Return by how much `reckoned` is more or less than what was found, in percent."""
    return f"{100 * (reckoned - found) / found:+.1f} %" if found else "nothing to compare with"
