"""Read the headers of a model folder's safetensors files, and say what is wrong with them.

Only headers are read, so a folder of any size takes milliseconds. What is missing, truncated,
described twice or contradicted by the index is a problem that names its file.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.model_files import read_object
from cortex_neuron.exllama.safetensors_headers import (
    PREFIX_BYTES,
    Malformed,
    Tensor,
    Truncated,
    header_length,
    parse_header,
)

INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The tensors of a folder by their names in the files, and the size of all its files."""

    tensors: Mapping[str, Tensor]
    file_bytes: int
    files: tuple[str, ...]
    problems: tuple[PreflightFailed, ...]


def read_weights(folder: Path) -> Weights:
    """Return what the headers in `folder` say. Blocking; what is wrong is in `problems`.

    Raises PreflightFailed when there is no such folder.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors")
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise PreflightFailed(
            "not_found", f"the model folder {folder} cannot be read: {reason}"
        ) from error
    problems: list[PreflightFailed] = []
    index: Mapping[str, str] = {}
    try:
        index = _index(folder)
    except PreflightFailed as problem:
        problems.append(_corrupt(INDEX, problem.message))
    problems += _absent({path.name for path in files}, index)
    if not files and not problems:
        problems.append(PreflightFailed("not_found", f"there is no .safetensors file in {folder}"))
    owner: dict[str, str] = {}
    tensors: dict[str, Tensor] = {}
    total = 0
    for path in files:
        try:
            found, size = _read_header(path)
        except PreflightFailed as problem:
            problems.append(problem)
            continue
        total += size
        if twice := sorted(found.keys() & owner.keys()):
            problems.append(
                _corrupt(
                    path.name,
                    f"{path.name} and {owner[twice[0]]} both hold {twice[0]!r}; "
                    "remove the file that belongs to another copy of the model",
                )
            )
        owner |= dict.fromkeys(found, path.name)
        tensors |= found
    if not problems:
        problems += _contradictions(index, owner)
    return Weights(
        tensors=tensors,
        file_bytes=total,
        files=tuple(path.name for path in files),
        problems=tuple(problems),
    )


def _read_header(path: Path) -> tuple[Mapping[str, Tensor], int]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(header_length(file.read(PREFIX_BYTES), size))
        return parse_header(header, size - PREFIX_BYTES - len(header)), size
    except Truncated as error:
        raise PreflightFailed(
            "corrupt",
            f"{path.name} is truncated: {error}; delete it and fetch it again",
            extra={
                "file": path.name,
                "expected_bytes": error.expected_bytes,
                "actual_bytes": error.actual_bytes,
            },
        ) from error
    except Malformed as error:
        raise _corrupt(
            path.name, f"{path.name} is damaged: {error}; delete it and fetch it again"
        ) from error
    except OSError as error:
        reason = error.strerror or "input/output error"
        raise PreflightFailed(
            "not_found",
            f"{path.name} of the model cannot be read: {reason}",
            extra={"file": path.name},
        ) from error


def _absent(here: set[str], index: Mapping[str, str]) -> Iterator[PreflightFailed]:
    """Yield a problem for each shard that the others, or the index, say there should be.

    An index none of whose files is here was left over from the weights before they were quantised.
    """
    wanted: dict[str, None] = {}
    for name in sorted(here):
        if found := _SHARD.fullmatch(name):
            count = int(found[3])
            # A name can claim 99999 shards; as many as there are files is enough to say so.
            reach = min(count, len(here) + 1)
            wanted |= dict.fromkeys(
                f"{found[1]}-{n:05d}-of-{count:05d}.safetensors" for n in range(1, reach + 1)
            )
    indexed = set(index.values())
    if indexed & here:
        wanted |= dict.fromkeys(sorted(indexed))
    for name in wanted:
        if name not in here:
            yield PreflightFailed(
                "not_found",
                f"the weights are not complete: {name} is missing; fetch the model again",
                extra={"file": name},
            )


def _contradictions(
    index: Mapping[str, str], owner: Mapping[str, str]
) -> Iterator[PreflightFailed]:
    """Yield a problem when the index puts a tensor where it is not."""
    if not set(index.values()) & set(owner.values()):
        return
    wrong = sorted(name for name, file in index.items() if owner.get(name) != file)
    if wrong:
        name = wrong[0]
        where = f"is in {owner[name]}" if name in owner else "is in no file"
        yield _corrupt(
            INDEX,
            f"{INDEX} puts {name!r} into {index[name]}, but it {where}"
            + (f" ({len(wrong)} tensors in all)" if len(wrong) > 1 else "")
            + "; fetch the model again",
        )


def _index(folder: Path) -> Mapping[str, str]:
    said: Any = (read_object(folder, INDEX) or {}).get("weight_map")
    if not isinstance(said, dict):
        return {}
    return {name: file for name, file in said.items() if isinstance(file, str)}


def _corrupt(file: str, message: str) -> PreflightFailed:
    return PreflightFailed("corrupt", message, extra={"file": file})
