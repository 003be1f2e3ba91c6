"""Fetch from the Hugging Face hub into its own cache, which other programs share.

`HF_HUB_CACHE` and `HF_HOME` say where that is. A hub that cannot be reached is no failure while
the files are in the cache: a node must come up without its way to the Internet.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources.choose import choose, is_model, shards_of
from cortex_neuron.sources.fetching import Fetching, require_space
from cortex_neuron.sources.parse import HuggingFaceSource

if TYPE_CHECKING:
    from tqdm import tqdm

_LIST_SECS = 10.0
_TRUE = {"1", "on", "yes", "true"}


def fetch(source: HuggingFaceSource, quant: str | None, fetching: Fetching) -> Path:
    """Return the file of `source` in the hub's cache. Raises PreflightFailed or FetchCancelled."""
    fetching.check()
    cache = cache_folder(fetching.environment)
    sizes = _list_remote(source, fetching.environment)
    if sizes is None:
        return _from_cache(source, quant, cache)
    file = _pick(source, quant, sizes)
    missing = [name for name in shards_of(file) if _cached(source, name, cache) is None]
    require_space(cache, sum(sizes.get(name, 0) for name in missing))
    total, done, paths = sum(sizes.get(name, 0) for name in shards_of(file)), 0, list[Path]()
    for name in shards_of(file):
        paths.append(_download(source, name, cache, done, total, fetching))
        done += sizes.get(name, 0)
        fetching.report(done, total)
    return paths[0]


def kept(source: HuggingFaceSource, quant: str | None, fetching: Fetching) -> Path:
    """Return the file of `source` from the hub's cache. Raises PreflightFailed."""
    return _from_cache(source, quant, cache_folder(fetching.environment))


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return where the hub's client keeps its files, given its environment."""
    if explicit := environment.get("HF_HUB_CACHE"):
        return Path(explicit).expanduser()
    if home := environment.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "huggingface" / "hub"


def _pick(source: HuggingFaceSource, quant: str | None, names: Mapping[str, int]) -> str:
    if source.file is None:
        return choose(names, quant, f"the repository {source.repo}")
    if missing := [name for name in shards_of(source.file) if name not in names]:
        near = difflib.get_close_matches(missing[0], filter(is_model, names), n=1, cutoff=0.3)
        raise PreflightFailed(
            "not_found",
            f"the repository {source.repo} has no file {missing[0]!r}"
            + (f"; did you mean {near[0]!r}?" if near else ""),
        )
    return source.file


def _snapshot(source: HuggingFaceSource, cache: Path) -> Path | None:
    """Return the newest complete picture of the repository in the cache, if there is one."""
    folder = cache / f"models--{source.repo.replace('/', '--')}"
    revision = source.revision or "main"
    try:
        commit = (folder / "refs" / revision).read_text().strip()
    except OSError:
        commit = revision
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def _cached(source: HuggingFaceSource, name: str, cache: Path) -> Path | None:
    snapshot = _snapshot(source, cache)
    return snapshot / name if snapshot is not None and (snapshot / name).is_file() else None


def _from_cache(source: HuggingFaceSource, quant: str | None, cache: Path) -> Path:
    snapshot = _snapshot(source, cache)
    names = (
        {p.relative_to(snapshot).as_posix(): 0 for p in snapshot.rglob("*") if p.is_file()}
        if snapshot is not None
        else {}
    )
    wanted = source.file and shards_of(source.file)
    if snapshot is None or (wanted and not set(wanted) <= set(names)) or not names:
        raise PreflightFailed(
            "fetch_failed",
            f"{source.repo} is not in this node's cache and the Hugging Face hub cannot be "
            "reached; check the node's network and HF_ENDPOINT, or name a local path as the source",
        )
    file = source.file or choose(names, quant, f"the cached part of {source.repo}")
    if absent := [name for name in shards_of(file) if name not in names]:
        raise PreflightFailed(
            "fetch_failed",
            f"{absent[0]!r} of {source.repo} is not in this node's cache and the Hugging Face hub "
            "cannot be reached; check the node's network",
        )
    return snapshot / shards_of(file)[0]


def _list_remote(
    source: HuggingFaceSource, environment: Mapping[str, str]
) -> dict[str, int] | None:
    """Return every file of the repository with its size, or None when the hub is out of reach."""
    if environment.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
        return None
    # The client takes a while to import, and a node without such sources never needs it.
    try:
        import huggingface_hub as hub  # noqa: PLC0415 - slow to import
        from huggingface_hub import errors  # noqa: PLC0415 - slow to import
    except ImportError:
        return None
    api = hub.HfApi(endpoint=environment.get("HF_ENDPOINT"), token=environment.get("HF_TOKEN"))
    try:
        info = api.model_info(
            source.repo, revision=source.revision, files_metadata=True, timeout=_LIST_SECS
        )
        return {file.rfilename: file.size or 0 for file in info.siblings or ()}
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _refused(source, error) from error
    except (_transport_error(), OSError):
        return None


def _download(
    source: HuggingFaceSource, name: str, cache: Path, before: int, total: int, fetching: Fetching
) -> Path:
    import huggingface_hub as hub  # noqa: PLC0415 - slow to import
    from huggingface_hub import errors  # noqa: PLC0415 - slow to import

    fetching.check()
    try:
        return Path(
            hub.hf_hub_download(
                source.repo,
                name,
                revision=source.revision,
                cache_dir=cache,
                endpoint=fetching.environment.get("HF_ENDPOINT"),
                token=fetching.environment.get("HF_TOKEN"),
                tqdm_class=_progress_class(before, total, fetching),
            )
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise _refused(source, error) from error
    except (_transport_error(), errors.EntryNotFoundError, RuntimeError) as error:
        fetching.check()
        raise PreflightFailed(
            "fetch_failed",
            f"the download of {name!r} from {source.repo} broke off; "
            "it goes on where it stopped when the model is loaded again",
        ) from error


def _refused(source: HuggingFaceSource, error: Exception) -> PreflightFailed:
    at = f" at revision {source.revision!r}" if source.revision else ""
    if type(error).__name__ == "GatedRepoError":
        return PreflightFailed(
            "not_found", f"{source.repo} is gated: accept its terms and give the node an HF_TOKEN"
        )
    return PreflightFailed(
        "not_found", f"the Hugging Face hub has no repository {source.repo}{at}, or it is private"
    )


def _transport_error() -> type[Exception]:
    """Return what the hub's HTTP client raises, whichever client this version of it uses."""
    from huggingface_hub import errors  # noqa: PLC0415 - slow to import

    found = next(c for c in errors.HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
    return found if issubclass(found, Exception) else OSError


def _progress_class(before: int, whole: int, fetching: Fetching) -> "type[tqdm[NoReturn]]":
    """Return a bar class that shows nothing, reports bytes, and stops a fetch nobody wants."""
    from tqdm import tqdm  # noqa: PLC0415 - slow to import

    class Progress(tqdm):  # type: ignore[type-arg]  # generic in its stubs only
        def __init__(self, *, initial: float = 0, total: float | None = None, **_: object) -> None:
            super().__init__(initial=initial, total=total, disable=True)
            self.bytes = int(initial)

        def update(self, n: float | None = 1) -> None:
            fetching.check()
            self.bytes += int(n or 0)
            fetching.report(before + self.bytes, whole or None)

    return Progress
