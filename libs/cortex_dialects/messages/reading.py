"""Take JSON apart with errors that name the place: `messages.3.content.0`."""

from typing import Any

from cortex_dialects.bad_body import BadBody


def as_object(value: Any, param: str) -> dict[str, Any]:
    """Return `value` if it is an object. Raises BadBody."""
    if not isinstance(value, dict):
        raise BadBody(f"{param} must be an object", param=param)
    return value


def as_list(value: Any, param: str) -> list[Any]:
    """Return `value` if it is a list. Raises BadBody."""
    if not isinstance(value, list):
        raise BadBody(f"{param} must be a list", param=param)
    return value


def as_text(value: Any, param: str) -> str:
    """Return `value` if it is text. Raises BadBody."""
    if not isinstance(value, str):
        raise BadBody(f"{param} must be a string", param=param)
    return value


def as_name(value: Any, param: str) -> str:
    """Return `value` if it is text that is not empty. Raises BadBody."""
    if not as_text(value, param):
        raise BadBody(f"{param} must not be empty", param=param)
    return str(value)
