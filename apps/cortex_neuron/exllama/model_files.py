"""The small files that come with a model's weights: JSON and templates, read with bounds."""

from pathlib import Path
from typing import Any

from orjson import JSONDecodeError, loads

from cortex_core.errors import PreflightFailed

#: A tokenizer of 256,000 words has 35 MB; nothing else comes near.
MAX_BYTES = 256 << 20


def read_text(folder: Path, name: str) -> str | None:
    """Return a file's text, None where there is no such file. Raises PreflightFailed."""
    path = folder / name
    try:
        if path.stat().st_size > MAX_BYTES:
            raise PreflightFailed("corrupt", f"{name} of the model is longer than any such file")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise PreflightFailed("corrupt", f"{name} of the model cannot be read") from error


def read_object(folder: Path, name: str) -> dict[str, Any] | None:
    """Return a file's JSON object, None where there is no such file. Raises PreflightFailed."""
    if (text := read_text(folder, name)) is None:
        return None
    try:
        value = loads(text)
    except JSONDecodeError as error:
        raise PreflightFailed("corrupt", f"{name} of the model is not JSON") from error
    if not isinstance(value, dict):
        raise PreflightFailed("corrupt", f"{name} of the model is no JSON object")
    return value
