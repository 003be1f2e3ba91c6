"""`keep_alive` of a request: for how long its model stays when nobody uses it afterwards."""

import re

#: Ollama's units; a bare number is seconds.
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def parse_keep_alive(value: object) -> float:
    """Return seconds: `300`, `"300"`, `"5m"`, `"1h30m"`; infinity for a negative one.

    Raises ValueError for anything else, with what may stand there.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _seconds(float(value))
    if isinstance(value, str) and len(value) <= 32:  # noqa: PLR2004  # no time is longer
        text = value.strip()
        if _NUMBER.fullmatch(text):
            return _seconds(float(text))
        bare = text.removeprefix("-")
        parts = _PART.findall(bare)
        if parts and "".join(number + unit for number, unit in parts) == bare:
            total = sum(float(number) * _UNITS[unit] for number, unit in parts)
            return _seconds(-total if text.startswith("-") else total)
    raise ValueError(
        "'keep_alive' must be seconds or a time such as \"5m\"; 0 unloads the model when it is "
        "idle, a negative one keeps it"
    )


def _seconds(value: float) -> float:
    # Written so that a NaN, which compares with nothing, is refused too.
    if value < 0:
        return float("inf")
    if value >= 0:
        return value
    raise ValueError("'keep_alive' must be a number of seconds")
