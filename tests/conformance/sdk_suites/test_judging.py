"""No case of a suite can change its mind unnoticed."""

from pathlib import Path

import pytest

from tests.conformance.sdk_suites.judging import (
    Case,
    Expected,
    judge,
    read_expected,
    read_report,
    table,
)
from tests.conformance.sdk_suites.suites import SUITES

LISTED = Expected("openai", ("test_models.*.test_delete[*]",), "no such route")


def case(name: str, error: str | None = None, sdk: str = "openai") -> Case:
    """A case of one file."""
    return Case(sdk=sdk, file="test_models", name=f"TestModels.{name}", error=error)


def test_what_passes_and_what_is_listed_and_fails_is_fine() -> None:
    """And both are counted."""
    verdict = judge([case("test_list[loose]"), case("test_delete[loose]", "404")], [LISTED])

    assert verdict.rows == [("openai test_models", 1, 1, 0)]
    assert verdict.reasons == [("no such route", 1)]
    assert not verdict.complaints
    assert "     1  no such route" in table(verdict)


@pytest.mark.parametrize(
    ("cases", "word"),
    [
        ([case("test_list[loose]", "404"), case("test_delete[loose]", "404")], "404"),
        ([case("test_delete[loose]")], "it passes"),
        ([case("test_list[loose]")], "nothing matches"),
        ([case("test_delete[loose]", "404", sdk="anthropic")], "404"),
    ],
    ids=["fails unlisted", "passes though listed", "listed and gone", "another SDK's"],
)
def test_anything_else_is_a_complaint(cases: list[Case], word: str) -> None:
    """With the name of the case."""
    verdict = judge(cases, [LISTED])

    assert any(word in complaint for complaint in verdict.complaints)
    assert "not as expected" in table(verdict)


def test_a_report_is_read(tmp_path: Path) -> None:
    """A test that was skipped or could not be set up has not passed."""
    place = 'classname="tests.api_resources.beta.test_models.TestModels"'
    report = tmp_path / "report.xml"
    report.write_text(
        f"<testsuites><testsuite><testcase {place} name='a[x]'/>"
        f"<testcase {place} name='b'><failure message='no&#10;way'/></testcase>"
        f"<testcase {place} name='c'><skipped message='later'/></testcase>"
        f"<testcase {place} name='d'><error/></testcase></testsuite></testsuites>"
    )
    cases = read_report("openai", report)

    assert [(one.path, one.error) for one in cases] == [
        ("beta.test_models.TestModels.a[x]", None),
        ("beta.test_models.TestModels.b", "no"),
        ("beta.test_models.TestModels.c", "later"),
        ("beta.test_models.TestModels.d", "error"),
    ]


def test_the_list_gives_its_reasons() -> None:
    """For tests that are run."""
    listed = read_expected(Path(__file__).with_name("expected.toml"))
    files = {(suite.package, file.replace("/", ".")) for suite in SUITES for file in suite.files}

    assert all(entry.reason and entry.cases for entry in listed)
    for entry in listed:
        for pattern in entry.cases:
            assert any(sdk == entry.sdk and pattern.startswith(file) for sdk, file in files)
