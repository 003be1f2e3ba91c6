"""What can be written again, counted in levels."""

from typing import Any

import pytest

from cortex_dialects.encoding import deeper_than


def nested(levels: int) -> Any:
    """Return lists and objects by turns, so many of them within each other."""
    value: Any = 1
    for level in range(levels):
        value = [0, value] if level % 2 else {"a": value, "b": "text"}
    return value


@pytest.mark.parametrize("levels", [0, 1, 2, 7, 208])
def test_levels_are_counted(levels: int) -> None:
    """As deep as it is, and no deeper."""
    assert not deeper_than(nested(levels), levels)
    assert levels == 0 or deeper_than(nested(levels), levels - 1)


def test_text_has_no_levels() -> None:
    """Brackets in a string are text, and empty lists count."""
    assert not deeper_than("[[[[", 0)
    assert not deeper_than([], 1)
    assert deeper_than([], 0)
