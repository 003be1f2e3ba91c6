"""Read a TOML file and the environment into a settings model, or say exactly what is wrong.

The environment wins: `CORTEX_GATEWAY__LISTEN=…` sets `[gateway] listen`. A value is read as TOML
where it is TOML and as text elsewhere, so numbers, lists and addresses all work unquoted.
An unknown key, in the file or in the environment, is an error that names the nearest valid one: a
typo must stop the start, not change nothing. (pydantic-settings ignores unknown variables.)
"""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

Settings = TypeVar("Settings", bound=BaseModel)


class ConfigError(Exception):
    """The configuration cannot be used; the message names file, key and remedy."""


def read_toml(path: Path) -> dict[str, Any]:
    """Return the parsed file. Raises ConfigError when it is missing, unreadable or not TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file. Create it, or name another one.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return parse_toml(text, path)


def parse_toml(text: str, path: Path) -> dict[str, Any]:
    """Return what a file with this text says. Raises ConfigError."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


def overlay_environment(
    values: Mapping[str, Any], environment: Mapping[str, str], prefix: str
) -> dict[str, Any]:
    """Return `values` with every `PREFIX_A__B` of the environment laid over key `a.b`."""
    merged = dict(values)
    for name, text in sorted(environment.items()):
        if not name.startswith(f"{prefix}_"):
            continue
        *parents, leaf = name.removeprefix(f"{prefix}_").lower().split("__")
        table = merged
        for parent in parents:
            inner = table.get(parent)
            table[parent] = dict(inner) if isinstance(inner, Mapping) else {}
            table = table[parent]
        table[leaf] = _parse_value(text)
    return merged


def validate(
    model: type[Settings],
    values: Mapping[str, Any],
    *,
    where: str,
    base: Path | None = None,
    secret: bool = False,
) -> Settings:
    """Return `values` as `model`; relative paths in it are resolved against `base`.

    Raises ConfigError with one line per mistake: key path, what is wrong, nearest valid key. What
    stood there is not told where it may be `secret`.
    """
    try:
        return model.model_validate(dict(values), context={"base": base})
    except ValidationError as error:
        lines = [_explain(model, dict(problem), secret=secret) for problem in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in lines)) from error


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(model: type[BaseModel], problem: dict[str, Any], *, secret: bool) -> str:
    location: tuple[int | str, ...] = problem["loc"]
    key = ".".join(str(part) for part in location)
    if problem["type"] != "extra_forbidden":
        got = "" if secret else f" (got {problem.get('input')!r})"
        return f"{key}: {problem['msg']}{got}"
    owner = _model_at(model, location[:-1])
    valid = sorted(owner.model_fields) if owner else []
    near = difflib.get_close_matches(str(location[-1]), valid, n=1, cutoff=0.5)
    advice = f"did you mean {near[0]!r}?" if near else f"valid keys: {', '.join(valid)}"
    return f"{key}: unknown key; {advice}"


def _model_at(model: type[BaseModel], location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """Return the settings model that owns `location`, looking through lists and tables."""
    found: type[BaseModel] | None = model
    for part in location:
        if found is None or isinstance(part, int):
            continue
        field = found.model_fields.get(part)
        found = _nested_model(field.annotation) if field else None
    return found


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        if (found := _nested_model(argument)) is not None:
            return found
    return None
