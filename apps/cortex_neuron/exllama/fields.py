"""Single fields of a request, read with their bounds; null is as good as absent."""

from collections.abc import Mapping
from math import isfinite
from typing import Any, NamedTuple

from cortex_core.errors import InvalidRequest


class Bounds(NamedTuple):
    """The least and the greatest value that a number may have."""

    least: float
    most: float


def read_number(body: Mapping[str, Any], name: str, bounds: Bounds) -> float | None:
    """Return a number. Raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequest(f"{name!r} must be a number", param=name)
    if not (bounds.least <= value <= bounds.most and isfinite(value)):
        raise _out_of(name, bounds)
    return float(value)


def read_integer(body: Mapping[str, Any], name: str, bounds: Bounds) -> int | None:
    """Return a whole number. Raises InvalidRequest."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # Some clients have no other numbers.
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"{name!r} must be a whole number", param=name)
    if not bounds.least <= value <= bounds.most:
        raise _out_of(name, bounds)
    return value


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    """Return a flag, false where it is absent. Raises InvalidRequest."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidRequest(f"{name!r} must be true or false", param=name)
    return bool(value)


def _out_of(name: str, bounds: Bounds) -> InvalidRequest:
    return InvalidRequest(
        f"{name!r} must be between {bounds.least:g} and {bounds.most:g}", param=name
    )
