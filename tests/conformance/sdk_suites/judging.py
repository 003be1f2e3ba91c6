"""What the suites' outcomes mean: every case passes, or is listed with its reason and fails."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, parse

_PREFIX = "tests.api_resources."


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test of an SDK. `error` is the first line of what went wrong, None when nothing did."""

    sdk: str
    file: str
    name: str
    error: str | None

    @property
    def path(self) -> str:
        """The name under which the list knows it: `beta.test_models.TestModels.test_x[strict]`."""
        return f"{self.file}.{self.name}"


@dataclass(frozen=True, slots=True)
class Expected:
    """Cases that fail, as patterns in which `*` stands for anything, and why they do."""

    sdk: str
    cases: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is as it should be, and what is not: `rows` are file, passed, listed, wrong."""

    rows: Sequence[tuple[str, int, int, int]]
    reasons: Sequence[tuple[str, int]]
    complaints: Sequence[str]


def read_expected(path: Path) -> list[Expected]:
    """Return the list: a table of each SDK's entries with `cases` and `reason`."""
    listed = tomllib.loads(path.read_text())
    return [
        Expected(sdk, tuple(entry["cases"]), entry["reason"])
        for sdk, entries in listed.items()
        for entry in entries
    ]


def read_report(sdk: str, path: Path) -> list[Case]:
    """Return the cases of a JUnit report."""
    return [_case(sdk, element) for element in parse(path).iter("testcase")]  # noqa: S314  # ours


def judge(cases: Sequence[Case], expected: Sequence[Expected]) -> Verdict:
    """Compare what happened with the list. An entry that matches nothing is a complaint, too."""
    complaints: list[str] = []
    listed: dict[tuple[str, str], Expected] = {}
    for entry in expected:
        for pattern in entry.cases:
            found = [c for c in cases if c.sdk == entry.sdk and _matches(pattern, c.path)]
            if not found:
                complaints.append(f"{entry.sdk}: nothing matches the listed {pattern}")
            listed.update(((case.sdk, case.path), entry) for case in found)
    counts: dict[str, Counter[str]] = {}
    reasons: Counter[str] = Counter()
    for case in cases:
        entry_of_case = listed.get((case.sdk, case.path))
        if (case.error is None) == (entry_of_case is None):
            kind = "passed" if entry_of_case is None else "listed"
        else:
            kind = "wrong"
            why = case.error or "it passes, and is listed as failing"
            complaints.append(f"{case.sdk}: {case.path}: {why}")
        if entry_of_case is not None:
            reasons[entry_of_case.reason] += 1
        counts.setdefault(f"{case.sdk} {case.file}", Counter())[kind] += 1
    rows = [(file, n["passed"], n["listed"], n["wrong"]) for file, n in counts.items()]
    return Verdict(rows, reasons.most_common(), complaints)


def table(verdict: Verdict) -> str:
    """Return the outcome for people."""
    passed, listed, wrong = (
        sum(column) for column in zip(*(row[1:] for row in verdict.rows), strict=True)
    )
    lines = _lines([*verdict.rows, ("in all", passed, listed, wrong)])
    if verdict.reasons:
        lines += ["", "listed as failing, because:"]
        lines += [f"{count:6}  {reason}" for reason, count in verdict.reasons]
    if verdict.complaints:
        lines += ["", "not as expected:", *(f"  {one}" for one in verdict.complaints)]
    return "\n".join(lines)


def _lines(rows: Iterable[tuple[str, int, int, int]]) -> list[str]:
    head = f"{'tests of':38} {'passed':>7} {'listed':>7} {'wrong':>7}"
    return [head, *(f"{file:38} {a:7} {b:7} {c:7}" for file, a, b, c in rows)]


def _case(sdk: str, element: Element) -> Case:
    place, name = element.get("classname", ""), element.get("name", "")
    file, _, group = place.removeprefix(_PREFIX).rpartition(".")
    problems = [one for kind in ("failure", "error", "skipped") for one in element.findall(kind)]
    said = [(one.get("message") or one.tag).splitlines()[0][:160] for one in problems]
    return Case(sdk=sdk, file=file, name=f"{group}.{name}", error=said[0] if said else None)


def _matches(pattern: str, path: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), path) is not None
