"""Models and engines for the suite of the real exllamav2."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.exllamav2.running import Bench
from tests.exllamav2.tiny_models import write_random


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of two layers of random weights."""
    return write_random(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Engines inside this process, closed at the end."""
    made = Bench()
    yield made
    await made.close()
