"""The quick ones of the faults under a node, and the page about all of them."""

from collections.abc import Iterator

import pytest

from tests.fake_nvml.gpus import compiled
from tests.faults.page import PATH, page, without_measurements
from tests.faults.scenario import Measured, Scenario
from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import Stage, stage


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A node whose GPUs and engines fail on demand."""
    library = compiled(tmp_path_factory.mktemp("library"))
    with stage(tmp_path_factory.mktemp("faults"), library) as made:
        yield made


@pytest.mark.fleet
@pytest.mark.parametrize(
    "scenario", [pytest.param(one, id=one.name) for one in SCENARIOS if one.fast]
)
def test_a_fault_has_the_outcome_of_the_table(scene: Stage, scenario: Scenario) -> None:
    """And leaves no process, memory, promise, seat or descriptor behind."""
    try:
        scenario.run(scene, Measured())
        scene.settles()
    finally:
        scene.reset()


def test_the_page_has_every_fault() -> None:
    """As it is written; `python -m tests.faults --write` brings it up to date."""
    assert without_measurements(PATH.read_text(encoding="utf-8")) == without_measurements(page({}))
