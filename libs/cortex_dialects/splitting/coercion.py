"""Arguments as their tool's schema wants them, where a model wrote strings.

Dialects with tags have no types, and models quote numbers. A string becomes what the schema asks
for if it says that unambiguously; whatever is mistyped stays the string it was.
"""

import re
from collections.abc import Iterator
from math import isfinite
from typing import Any

from orjson import JSONDecodeError, loads

# Python's words too: templates write them.
_NULLS = ("null", "None")
_BOOLEANS = {"true": True, "True": True, "false": False, "False": False}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LARGEST = 2**63
_CONTAINERS: tuple[tuple[str, str, type], ...] = (("array", "[", list), ("object", "{", dict))


def coerce_arguments(arguments: dict[str, Any], schema: dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments with strings turned into what `schema` (of the whole object) wants."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return dict(arguments)
    return {
        key: _coerced(value, properties.get(key)) if isinstance(value, str) else value
        for key, value in arguments.items()
    }


def _coerced(text: str, schema: object) -> Any:
    wanted = set(_types(schema))
    if "string" in wanted:
        return text
    said = text.strip()
    if "null" in wanted and said in _NULLS:
        return None
    if "boolean" in wanted and said in _BOOLEANS:
        return _BOOLEANS[said]
    if wanted & {"integer", "number"} and _INTEGER.fullmatch(said):
        return int(said) if abs(int(said)) < _LARGEST else text
    if "number" in wanted and _NUMBER.fullmatch(said):
        # An integer that is too long for 64 bits would change on the way.
        return float(said) if not said.lstrip("-").isdigit() and isfinite(float(said)) else text
    for name, opening, kind in _CONTAINERS:
        if name in wanted and said.startswith(opening):
            return _parsed(said, kind, text)
    return text


def _types(schema: object) -> Iterator[str]:
    """Yield the types that a value's schema allows, as far as it says them plainly."""
    if not isinstance(schema, dict):
        return
    said = schema.get("type")
    yield from (one for one in (said if isinstance(said, list) else [said]) if isinstance(one, str))
    for key in ("anyOf", "oneOf"):
        if isinstance(choices := schema.get(key), list):
            for choice in choices:
                if isinstance(choice, dict):
                    yield from _types({"type": choice.get("type")})


def _parsed(said: str, kind: type, text: str) -> Any:
    try:
        value = loads(said)
    except JSONDecodeError:
        return text
    return value if isinstance(value, kind) else text
