"""The quick ones of the faults: what clients get, what is left behind, and the page about it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.page import PATH, page
from tests.chaos.scenario import Alone, Scenario, Staged, lone, twin
from tests.chaos.stage import Stage, stage
from tests.chaos.suite import ALONE, SCENARIOS, STAGED

QUICK = [one for one in STAGED if one.fast]


def cases(scenarios: Sequence[Scenario]) -> list[Any]:
    """Return scenarios as parameters; one that is not yet as it should be has to fail."""
    return [
        pytest.param(
            one, id=one.name, marks=pytest.mark.xfail(reason=one.not_yet) if one.not_yet else ()
        )
        for one in scenarios
        if one.fast
    ]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One gateway in front of a node that fails on demand and one that does not."""
    names = [one.name for one in QUICK]
    folder = tmp_path_factory.mktemp("chaos")
    with stage(folder, [lone(name) for name in names], [twin(name) for name in names]) as made:
        yield made


@pytest.mark.fleet
@pytest.mark.parametrize("scenario", cases(STAGED))
def test_a_fault_has_the_outcome_of_the_table(scene: Stage, scenario: Staged) -> None:
    """And leaves nothing behind."""
    scene.clear()
    scenario.run(scene, scenario.name)


@pytest.mark.fleet
@pytest.mark.parametrize("scenario", cases(ALONE))
def test_a_fault_of_a_whole_gateway_has_it_too(tmp_path: Path, scenario: Alone) -> None:
    """Names, descriptors and drains."""
    scenario.run(tmp_path)


def test_no_two_faults_share_a_name() -> None:
    """Their models carry it, and the page is read by it."""
    names = [one.name for one in SCENARIOS]

    assert len(names) == len(set(names))


def test_the_page_has_every_fault() -> None:
    """As it is written; `python -m tests.chaos --write` brings it up to date."""
    assert PATH.read_text(encoding="utf-8") == page(SCENARIOS)
