"""Whether a library can be used, without importing it."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from cortex_neuron.exllama.availability import missing


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that must not be imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "somelib").mkdir()
    (tmp_path / "somelib" / "__init__.py").write_text("raise AssertionError('it was imported')")
    return tmp_path


def test_a_library_with_its_extension_can_be_used(site: Path) -> None:
    """Nothing of it is imported to find that out."""
    (site / f"somelib_ext{EXTENSION_SUFFIXES[0]}").write_bytes(b"")

    assert missing("somelib", "somelib_ext", ["json"]) is None
    assert "somelib" not in sys.modules


def test_a_library_without_its_extension_cannot(site: Path) -> None:
    """Importing it would begin to build one."""
    assert "without its compiled extension somelib_ext" in str(
        missing("somelib", "somelib_ext", [])
    )


def test_a_python_file_is_no_extension(site: Path) -> None:
    """It would be found, and be of no use."""
    (site / "somelib_ext.py").write_text("raise AssertionError('it was imported')")

    assert "no compiled extension" in str(missing("somelib", "somelib_ext", []))


def test_what_is_not_installed_is_named(site: Path) -> None:
    """With what else it needs."""
    found = str(missing("somelib", "somelib_ext", ["json", "nolib", "nolib.inner"]))

    assert "nolib, nolib.inner" in found
    assert "json" not in found
