"""Values as JSON bytes, where what a client sent may be more than can be written again."""

from typing import Any

from orjson import __version__ as _orjson
from orjson import dumps

from cortex_dialects.bad_body import BadBody

#: orjson before 3.12 writes beyond its memory from about 220 levels on, which ends the process.
_FRAGILE = tuple(map(int, _orjson.split(".")[:2])) < (3, 12)
_LEVELS_WRITTEN_WELL = 208


def encode(value: Any) -> bytes:
    """Return `value` as JSON. Raises BadBody when it is nested deeper than can be written."""
    if _FRAGILE and deeper_than(value, _LEVELS_WRITTEN_WELL):
        raise BadBody("the body is nested too deeply", code="malformed_json")
    try:
        return dumps(value)
    except TypeError as error:
        raise BadBody("the body is nested too deeply", code="malformed_json") from error


def deeper_than(value: Any, levels: int) -> bool:
    """Whether `value` has lists and objects within each other on more than so many levels."""
    here = [value]
    for _ in range(levels + 1):
        here = [one for one in here if isinstance(one, dict | list)]
        if not here:
            return False
        here = [inner for one in here for inner in (one.values() if isinstance(one, dict) else one)]
    return True
