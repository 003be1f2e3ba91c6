"""What models this machine keeps, and how to be rid of one. Everything here blocks on the disk.

Models are in `model_dirs`, in the hub's cache, and in `cache_dir`. What lies in `model_dirs` was
put there by somebody and is never removed; what was fetched is.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import assert_never

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources import pypi
from cortex_neuron.sources.choose import is_model, missing_shards, model_folders, shards_of
from cortex_neuron.sources.fetching import Fetching
from cortex_neuron.sources.hub_cache import Repository, cache_folder, files_of, repositories
from cortex_neuron.sources.huggingface import kept
from cortex_neuron.sources.local import scan_model_dirs
from cortex_neuron.sources.parse import (
    FileSource,
    FolderSource,
    HuggingFaceSource,
    PypiSource,
    Source,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One model on the disk. `source` is how to ask for it; `missing` is what it lacks.

    Without a `path` it is the beginning of a download.
    """

    source: str
    path: Path | None
    size: int
    missing: tuple[str, ...] = ()
    fetched: bool = True


def stored(model_dirs: Iterable[Path], fetching: Fetching) -> tuple[Stored, ...]:
    """Return every model that this machine keeps."""
    local = scan_model_dirs(model_dirs).models
    found = [
        Stored(source=str(one.path), path=one.path, size=one.size, fetched=False) for one in local
    ]
    for repository in repositories(cache_folder(fetching.environment)):
        found += _of_repository(repository)
    return (*found, *_of_wheels(fetching.cache_dir / "pypi"))


def remove(source: Source, quant: str | None, fetching: Fetching) -> int:
    """Remove what was fetched of `source`; return the bytes that came free.

    Without a quant, a file or a revision that is all of it. Raises PreflightFailed `not_found` for
    what is not here, and `bad_source` for what nobody fetched.
    """
    match source:
        case HuggingFaceSource():
            return _remove_from_hub(source, quant, fetching)
        case PypiSource():
            return pypi.remove(source, fetching)
        case FileSource(path) | FolderSource(path):
            raise PreflightFailed(
                "bad_source", f"{path} was not fetched by this node: delete it yourself"
            )
        case never:
            assert_never(never)


def _of_repository(repository: Repository) -> Iterator[Stored]:
    revisions: dict[str, str] = {}
    for revision, commit in repository.revisions.items():
        # A branch is what people know; `main` needs no name.
        revisions.setdefault(commit, revision)
        if revision == "main":
            revisions[commit] = revision
    for commit in repository.commits:
        snapshot = repository.folder / "snapshots" / commit
        files = files_of(snapshot)
        revision = revisions.get(commit, commit)
        suffix = "" if revision == "main" else f"@{revision}"
        for name in filter(is_model, files):
            yield _stored(
                f"hf:{repository.name}/{name}{suffix}", snapshot / name, files, shards_of(name)
            )
        for folder in model_folders(files):
            inside = [name for name in files if name.startswith(f"{folder}/") or not folder]
            lacking = missing_shards(one for one in inside if one.endswith(".safetensors"))
            where = f" (quant {PurePosixPath(folder).name})" if folder else ""
            yield _stored(
                f"hf:{repository.name}{suffix}{where}",
                snapshot / folder,
                files,
                (*inside, *lacking),
            )
    if begun := repository.partial_bytes:
        yield Stored(source=f"hf:{repository.name}", path=None, size=begun)


def _stored(source: str, path: Path, files: Mapping[str, int], wanted: Iterable[str]) -> Stored:
    names = tuple(wanted)
    return Stored(
        source=source,
        path=path,
        size=sum(files.get(name, 0) for name in names),
        missing=tuple(name for name in names if name not in files),
    )


def _of_wheels(folder: Path) -> Iterator[Stored]:
    for path in sorted(folder.rglob("*.gguf")) if folder.is_dir() else ():
        inside = path.relative_to(folder)
        name, _, version = inside.parts[0].rpartition("-")
        yield Stored(
            source=f"pypi:{name}=={version}/{PurePosixPath(*inside.parts[1:])}",
            path=path,
            size=path.stat().st_size,
        )


def _remove_from_hub(source: HuggingFaceSource, quant: str | None, fetching: Fetching) -> int:
    repository = Repository(cache_folder(fetching.environment), source.repo)
    if not repository.folder.is_dir():
        raise PreflightFailed("not_found", f"{source.repo} is not in this node's cache")
    before = _bytes_in(repository)
    if source.file is None and quant is None and source.revision is None:
        shutil.rmtree(repository.folder)
        return before
    if source.file is None and quant is None:
        snapshot = repository.snapshot(source.revision)
        if snapshot is None:
            raise PreflightFailed(
                "not_found", f"{source.repo} is not here at revision {source.revision!r}"
            )
        shutil.rmtree(snapshot)
    else:
        try:
            path = kept(source, quant, fetching)
        except PreflightFailed as error:
            raise PreflightFailed(
                "not_found", f"that model of {source.repo} is not in this node's cache"
            ) from error
        if path.is_dir():
            shutil.rmtree(path)
        else:
            for name in shards_of(path.name):
                path.with_name(name).unlink(missing_ok=True)
    repository.sweep()
    return before - (_bytes_in(repository) if repository.folder.is_dir() else 0)


def _bytes_in(repository: Repository) -> int:
    return sum(
        path.stat().st_size
        for path in repository.folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
