"""Models that already lie on this machine's disk."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources.choose import (
    choose,
    is_model,
    is_model_folder,
    is_quant_of,
    means,
    no_such_quant,
    shards_of,
)

_WEIGHTS = ".safetensors"


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model below one of `model_dirs`. `size` is in bytes, over all its shards."""

    id: str
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class ModelScan:
    """What lies below `model_dirs`, and one sentence for each folder that could not be read."""

    models: tuple[LocalModel, ...]
    problems: tuple[str, ...]


def local_file(path: Path) -> Path:
    """Return `path` once all of its shards are there. Raises PreflightFailed `not_found`."""
    first = path.with_name(shards_of(path.name)[0])
    for name in shards_of(path.name):
        if not _is_file(path.with_name(name)):
            raise PreflightFailed("not_found", f"there is no model file {path.with_name(name)}")
    return first


def local_folder(path: Path, quant: str | None) -> Path:
    """Return what `quant` means in `path`: a GGUF file, `path` itself, or a folder in it.

    Raises PreflightFailed.
    """
    names = _names(path)
    if is_model_folder(names):
        if quant is None or is_quant_of(quant, path.name) or _says(path, quant):
            return path
        raise no_such_quant(quant, (), f"the folder {path}")
    inner = [] if any(map(is_model, names)) else [path / name for name in sorted(names)]
    folders = [one for one in inner if _is_folder(one) and is_model_folder(_names(one))]
    if not folders:
        return local_file(path / choose(names, quant, f"the folder {path}"))
    if quant is None and len(folders) == 1:
        return folders[0]
    for folder in folders:
        if quant is not None and (means(quant, folder.name) or _says(folder, quant)):
            return folder
    raise no_such_quant(quant, [one.name for one in folders], f"the folder {path}")


def scan_model_dirs(dirs: Iterable[Path]) -> ModelScan:
    """Return every model below `dirs`; its id is its path there, without the extension.

    Where two folders hold the same id, the first folder wins.
    """
    models: dict[str, LocalModel] = {}
    problems: list[str] = []

    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    for top in dirs:
        for folder, inner, files in os.walk(top, onerror=unreadable, followlinks=False):
            inner.sort()
            if is_model_folder(files):
                found = _model_folder(top, Path(folder), files)
                models.setdefault(found.id, found)
                continue
            for file in sorted(files):
                path = Path(folder) / file
                if not is_model(file):
                    continue
                size = _size(path)
                if size is None:
                    problems.append(f"{path}: cannot be read, or shards are missing")
                    continue
                id_ = path.relative_to(top).with_suffix("").as_posix()
                models.setdefault(id_, LocalModel(id=id_, path=path, size=size))
    return ModelScan(tuple(models[id_] for id_ in sorted(models)), tuple(problems))


def _model_folder(top: Path, folder: Path, files: Iterable[str]) -> LocalModel:
    inside = folder.relative_to(top).as_posix()
    sizes = (_size(folder / name) for name in files if name.endswith(_WEIGHTS))
    return LocalModel(
        id=folder.name if inside == "." else inside,
        path=folder,
        size=sum(size for size in sizes if size is not None),
    )


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise PreflightFailed(
            "not_found", f"the model folder {folder} cannot be read: {reason}"
        ) from error


def _says(folder: Path, quant: str) -> bool:
    """Whether the model's config.json says that it is of this quant."""
    try:
        said = json.loads((folder / "config.json").read_bytes())["quantization_config"]
        return means(quant, str(said["bits"])) or means(quant, str(said["quant_method"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _size(path: Path) -> int | None:
    """Return the bytes of all shards, or None when one of them is missing."""
    try:
        return sum(path.with_name(name).stat().st_size for name in shards_of(path.name))
    except OSError:
        return None
