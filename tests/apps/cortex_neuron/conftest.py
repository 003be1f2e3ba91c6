"""Fixtures of the node's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_nvml.gpus import Gpus, compiled, in_this_process


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fake `libnvidia-ml.so.1`, compiled once."""
    return compiled(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def gpus(tmp_path: Path, nvml_library: Path) -> Gpus:
    """A machine whose GPUs are in a file; none yet."""
    return Gpus(tmp_path / "gpus", nvml_library)


@pytest.fixture
def here(gpus: Gpus, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpus]:
    """That machine, seen by this process."""
    with in_this_process(gpus, monkeypatch):
        yield gpus
