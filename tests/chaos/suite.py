"""Every scenario there is, and how to run some of them."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, cast

from tests.chaos.breaker_faults import BREAKER_SCENARIOS
from tests.chaos.client_faults import CLIENT_SCENARIOS
from tests.chaos.overload_faults import OVERLOAD_SCENARIOS
from tests.chaos.process_faults import PROCESS_SCENARIOS
from tests.chaos.scenario import NODE_SCENARIOS, Alone, Scenario, Staged, lone, twin
from tests.chaos.stage import Stage, stage
from tests.chaos.surroundings import SURROUNDING_SCENARIOS

STAGED: tuple[Staged, ...] = (*NODE_SCENARIOS, *CLIENT_SCENARIOS, *BREAKER_SCENARIOS)
ALONE: tuple[Alone, ...] = (*OVERLOAD_SCENARIOS, *PROCESS_SCENARIOS, *SURROUNDING_SCENARIOS)
SCENARIOS: tuple[Scenario, ...] = (*STAGED, *ALONE)


class Result(NamedTuple):
    """What came of one scenario: None is as it should be."""

    scenario: Scenario
    secs: float
    error: Exception | None


def results(scenarios: Sequence[Scenario]) -> Iterator[Result]:
    """Run scenarios, those on the common stage first."""
    staged = [one for one in scenarios if isinstance(one, Staged)]
    with TemporaryDirectory(prefix="chaos-") as folder:
        if staged:
            names = [one.name for one in staged]
            with stage(Path(folder), list(map(lone, names)), list(map(twin, names))) as made:
                for one in staged:
                    yield _result(one, made)
    for alone in scenarios:
        if isinstance(alone, Alone):
            with TemporaryDirectory(prefix="chaos-") as folder:
                yield _result(alone, Path(folder))


def _result(scenario: Scenario, where: Stage | Path) -> Result:
    began = time.monotonic()
    error: Exception | None = None
    try:
        if isinstance(scenario, Staged):
            scenario.run(cast("Stage", where), scenario.name)
        elif isinstance(scenario, Alone):
            scenario.run(cast("Path", where))
    except Exception as caught:  # noqa: BLE001  # told in the table
        error = caught
        if isinstance(where, Stage):
            where.clear()
    return Result(scenario, time.monotonic() - began, error)
