"""The committed table of exllamav2's signatures, against the package that is installed here."""

import importlib.util
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from tests.apps.cortex_neuron.exllama.contract.names import committed, table_of


def test_the_table_is_that_of_the_package() -> None:
    """What the fast suite holds the adapter and its fake to is what exllamav2 really offers."""
    spec = importlib.util.find_spec("exllamav2")
    assert spec is not None
    assert spec.origin is not None
    found = table_of(Path(spec.origin).parent)

    assert version("exllamav2") == "0.3.2"
    assert asdict(found) == asdict(committed("exllamav2"))
