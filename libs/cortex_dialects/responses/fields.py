"""Fields of a parsed body, each checked for the one type that may stand there."""

from collections.abc import Mapping
from typing import Any

from cortex_dialects.bad_body import BadBody


def text_of(body: Mapping[str, Any], name: str, where: str = "") -> str | None:
    """Return a string, None where it is absent or null. `where` leads to `body`. Raises BadBody."""
    value = body.get(name)
    if value is None or isinstance(value, str):
        return value
    raise _mistyped(where + name, "a string")


def name_of(body: Mapping[str, Any], name: str, where: str = "") -> str:
    """Return a string that must be there. Raises BadBody."""
    if found := text_of(body, name, where):
        return found
    raise _mistyped(where + name, "a non-empty string")


def object_of(body: Mapping[str, Any], name: str, where: str = "") -> dict[str, Any] | None:
    """Return an object, None where it is absent or null. Raises BadBody."""
    value = body.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise _mistyped(where + name, "an object")


def objects_of(body: Mapping[str, Any], name: str, where: str = "") -> list[dict[str, Any]]:
    """Return a list of objects, an empty one where it is absent or null. Raises BadBody."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _mistyped(where + name, "an array")
    for position, one in enumerate(value):
        if not isinstance(one, dict):
            raise _mistyped(f"{where}{name}[{position}]", "an object")
    return value


def flag_of(body: Mapping[str, Any], name: str, where: str = "") -> bool | None:
    """Return a boolean, None where it is absent or null. Raises BadBody."""
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise _mistyped(where + name, "true or false")


def number_of(body: Mapping[str, Any], name: str) -> float | None:
    """Return a number, None where it is absent or null. Raises BadBody."""
    value = body.get(name)
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    raise _mistyped(name, "a number")


def count_of(body: Mapping[str, Any], name: str) -> int | None:
    """Return a whole number, None where it is absent or null. Raises BadBody."""
    value = number_of(body, name)
    if value is None or isinstance(value, int):
        return value
    raise _mistyped(name, "a whole number")


def _mistyped(param: str, wanted: str) -> BadBody:
    return BadBody(f"'{param}' must be {wanted}", param=param)
