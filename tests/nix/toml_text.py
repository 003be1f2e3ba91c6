"""Write what Nix rendered as TOML, as `pkgs.formats.toml` does when a system is built."""

import json
from collections.abc import Mapping
from typing import Any


def toml_text(content: Mapping[str, Any]) -> str:
    """Return `content` as one TOML document. Tables are written inline, which is as valid."""
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in content.items())


def _value(value: Any) -> str:
    match value:
        case Mapping():
            inner = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items())
            return f"{{ {inner} }}"
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case bool() | int() | float() | str():
            # TOML's basic strings take every escape that JSON's have.
            return json.dumps(value)
    raise TypeError(f"TOML has no {value!r}")


def _key(key: str) -> str:
    return json.dumps(key)
