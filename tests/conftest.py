"""Fixtures of the whole suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.demo_model import demo_model_path
from tests.fleet.processes import Workbench, workbench

settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The file of the small real model, fetched once a machine."""
    return demo_model_path()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Workbench]:
    """Daemons for one test."""
    with workbench(tmp_path) as made:
        yield made
