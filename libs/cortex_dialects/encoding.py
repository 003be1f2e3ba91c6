"""Values as JSON bytes, where what a client sent may be more than can be written again."""

from typing import Any

from orjson import dumps

from cortex_dialects.bad_body import BadBody


def encode(value: Any) -> bytes:
    """Return `value` as JSON. Raises BadBody when it is nested deeper than can be written."""
    try:
        return dumps(value)
    except TypeError as error:
        raise BadBody("the body is nested too deeply", code="malformed_json") from error
