"""Fetch from the Hugging Face hub into its own cache, which other programs share.

A fetch is of one commit, whatever happens to the branch meanwhile, and of the files that the model
is loaded from alone. A quant is a GGUF file, a folder, or a branch. A hub that cannot be reached is
no failure while the files are in the cache: a node must come up without its way to the Internet.
"""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources import hub
from cortex_neuron.sources.choose import (
    choose,
    files_needed,
    is_model,
    is_quant_of,
    means,
    missing_shards,
    model_folders,
    no_such_quant,
    shards_of,
)
from cortex_neuron.sources.downloading import Denied, Download, download, is_checkable
from cortex_neuron.sources.fetching import Fetching, require_space
from cortex_neuron.sources.hub_cache import Repository, cache_folder, files_of
from cortex_neuron.sources.locking import locked
from cortex_neuron.sources.parse import HuggingFaceSource

_GATED = (401, 403)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The files of one model in a repository, and which path stands for it."""

    files: tuple[str, ...]
    path: str
    revision: str | None


def fetch(source: HuggingFaceSource, quant: str | None, fetching: Fetching) -> Path:
    """Return the model of `source` in the hub's cache. Raises PreflightFailed or FetchCancelled."""
    fetching.check()
    environment = fetching.environment
    repository = Repository(cache_folder(environment), source.repo)
    listing = hub.list_files(source.repo, source.revision, environment)
    if listing is None:
        return _from_cache(source, quant, repository)
    names = listing.files.keys()
    choice = _choose(source, quant, names, lambda: hub.branches(source.repo, environment))
    if choice.revision != source.revision:
        return fetch(replace(source, revision=choice.revision), None, fetching)
    _download_all(repository, listing, choice, fetching)
    repository.remember(source.revision, listing.commit)
    return repository.folder / "snapshots" / listing.commit / choice.path


def kept(source: HuggingFaceSource, quant: str | None, fetching: Fetching) -> Path:
    """Return the model of `source` from the hub's cache. Raises PreflightFailed."""
    repository = Repository(cache_folder(fetching.environment), source.repo)
    return _from_cache(source, quant, repository)


def _choose(
    source: HuggingFaceSource,
    quant: str | None,
    names: Iterable[str],
    branches: Callable[[], Iterable[str]],
) -> Choice:
    """Return which files are meant; with another revision when a branch is. Raises PreflightFailed.

    Without a quant the top of the repository is meant, or the only model there is.
    """
    known, where = set(names), f"the repository {source.repo}"
    if source.file is not None or any(map(is_model, known)):
        file = source.file or choose(known, quant, where)
        return _shards(source, file, known)
    folders = model_folders(known)
    if quant is None:
        if "" in folders or len(folders) == 1:
            return _folder(source, known, "" if "" in folders else folders[0])
    else:
        for folder in folders:
            if folder and means(quant, folder.rpartition("/")[2]):
                return _folder(source, known, folder)
        whole = is_quant_of(quant, source.repo) or means(quant, source.revision or "")
        if "" in folders and whole:
            return _folder(source, known, "")
    others = () if source.revision is not None else tuple(branches())
    if branch := next((one for one in others if quant is not None and means(quant, one)), None):
        return Choice(files=(), path="", revision=branch)
    labels = [*filter(None, folders), *(one for one in others if one != "main")]
    if not folders and not labels:
        choose(known, quant, where)
    raise no_such_quant(quant, labels, where)


def _folder(source: HuggingFaceSource, names: Iterable[str], folder: str) -> Choice:
    known = set(names)
    files = files_needed(known, folder)
    if absent := missing_shards(name for name in known if name.endswith(".safetensors")):
        raise PreflightFailed(
            "not_found",
            f"the weights of {source.repo} are not complete: {absent[0]} is missing there",
            extra={"file": absent[0]},
        )
    return Choice(files=files, path=folder, revision=source.revision)


def _shards(source: HuggingFaceSource, file: str, names: Iterable[str]) -> Choice:
    known = set(names)
    if missing := [name for name in shards_of(file) if name not in known]:
        near = difflib.get_close_matches(missing[0], filter(is_model, known), n=1, cutoff=0.3)
        raise PreflightFailed(
            "not_found",
            f"the repository {source.repo} has no file {missing[0]!r}"
            + (f"; did you mean {near[0]!r}?" if near else ""),
        )
    return Choice(files=shards_of(file), path=shards_of(file)[0], revision=source.revision)


def _from_cache(source: HuggingFaceSource, quant: str | None, repository: Repository) -> Path:
    """Return the model as it is here. Raises PreflightFailed."""
    snapshot = repository.snapshot(source.revision)
    names = files_of(snapshot) if snapshot is not None else {}
    if not names and (quant is None or source.file is not None or source.revision is not None):
        raise PreflightFailed(
            "fetch_failed",
            f"{source.repo} is not in this node's cache and the Hugging Face hub cannot be "
            "reached; check the node's network and HF_ENDPOINT, or name a local path as the source",
        )
    try:
        choice = _choose(source, quant, names, lambda: repository.revisions)
    except PreflightFailed as error:
        if error.kind == "quant_not_found" and names:
            raise
        raise PreflightFailed(
            "fetch_failed",
            f"what this node's cache has of {source.repo} is not that model, or not all of it "
            f"({error.message}), and the Hugging Face hub cannot be reached; "
            "check the node's network",
        ) from error
    if choice.revision != source.revision:
        return _from_cache(replace(source, revision=choice.revision), None, repository)
    assert snapshot is not None  # noqa: S101  # it has the names that were chosen from
    return snapshot / choice.path


def _download_all(
    repository: Repository, listing: hub.Listing, choice: Choice, fetching: Fetching
) -> None:
    """Have every file of `choice` in the picture of the commit, whole."""
    files = {name: listing.files[name] for name in choice.files}
    total = sum(file.size for file in files.values())
    snapshot = repository.folder / "snapshots" / listing.commit
    here = files_of(snapshot) if snapshot.is_dir() else {}
    missing = {name: file for name, file in files.items() if here.get(name) != file.size}
    require_space(
        repository.cache, sum(_still_needed(repository, file) for file in missing.values())
    )
    before = total - sum(file.size for file in missing.values())
    for name, file in missing.items():
        _download(repository, listing.commit, name, file, _told(fetching, before, total), fetching)
        before += file.size
    fetching.report(total, total)


def _download(
    repository: Repository,
    commit: str,
    name: str,
    file: hub.RemoteFile,
    report: Callable[[int], None],
    fetching: Fetching,
) -> None:
    fetching.check()
    blob = repository.blob(file.digest)
    with locked(repository.lock(file.digest), fetching):
        if not blob.is_file() or blob.stat().st_size != file.size:
            checkable = is_checkable(file.digest, sha256=file.sha256)
            wanted = Download(
                url=hub.address(repository.name, name, commit, fetching.environment),
                headers=hub.credentials(fetching.environment),
                name=name,
                size=file.size,
                digest=file.digest if checkable else None,
                sha256=file.sha256,
            )
            try:
                download(wanted, repository.partial(file.digest), blob, report, fetching)
            except Denied as error:
                if error.status in _GATED:
                    raise hub.refused(repository.name, None, gated=True) from error
                raise PreflightFailed(
                    "not_found",
                    f"the Hugging Face hub does not give {name!r} of {repository.name} "
                    f"(status {error.status})",
                ) from error
        repository.link(commit, name, file.digest)


def _still_needed(repository: Repository, file: hub.RemoteFile) -> int:
    """Return the bytes of a file that are not on the disk yet."""
    for path in (repository.blob(file.digest), repository.partial(file.digest)):
        if path.is_file():
            return max(0, file.size - path.stat().st_size)
    return file.size


def _told(fetching: Fetching, before: int, total: int) -> Callable[[int], None]:
    return lambda done: fetching.report(before + done, total or None)
