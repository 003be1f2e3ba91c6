"""The Hugging Face hub's own cache on this machine, which other programs share.

`models--ORG--NAME/` holds `blobs/` (contents, by their digests), `snapshots/COMMIT/` (names, linked
to contents) and `refs/` (what a branch or tag was last seen to be). A download that is under way,
or broke off, is `blobs/DIGEST.incomplete`.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_PARTIAL = ".incomplete"
_PREFIX = "models--"


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Return where the hub's client keeps its files, given its environment."""
    if explicit := environment.get("HF_HUB_CACHE"):
        return Path(explicit).expanduser()
    if home := environment.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "huggingface" / "hub"


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository in the cache; it need not be there."""

    cache: Path
    name: str

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.cache / f"{_PREFIX}{self.name.replace('/', '--')}"

    @property
    def revisions(self) -> Mapping[str, str]:
        """The branches and tags that are known here, with their commits."""
        refs = self.folder / "refs"
        found = {}
        for path in sorted(refs.rglob("*")) if refs.is_dir() else ():
            if path.is_file():
                found[path.relative_to(refs).as_posix()] = path.read_text().strip()
        return found

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits of which something is here."""
        folder = self.folder / "snapshots"
        return tuple(sorted(one.name for one in folder.iterdir())) if folder.is_dir() else ()

    def snapshot(self, revision: str | None) -> Path | None:
        """Return the picture of a branch, tag or commit, if there is one."""
        wanted = revision or "main"
        try:
            commit = (self.folder / "refs" / wanted).read_text().strip()
        except OSError:
            commit = wanted
        found = self.folder / "snapshots" / commit
        return found if commit and found.is_dir() else None

    def remember(self, revision: str | None, commit: str) -> None:
        """Note what `revision` is, so that it is found without the hub."""
        if revision == commit:
            return
        path = self.folder / "refs" / (revision or "main")
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        fresh.write_text(commit)
        fresh.replace(path)

    def blob(self, digest: str) -> Path:
        """Return where the content of `digest` belongs."""
        return self.folder / "blobs" / digest

    def partial(self, digest: str) -> Path:
        """Return where the content of `digest` is while it is not whole."""
        return self.folder / "blobs" / f"{digest}{_PARTIAL}"

    def lock(self, digest: str) -> Path:
        """Return the lock that the hub's client takes for the content of `digest`."""
        return self.cache / ".locks" / self.folder.name / f"{digest}.lock"

    @property
    def partial_bytes(self) -> int:
        """Bytes of downloads that are not whole."""
        return sum(_size(path) for path in self.folder.glob(f"blobs/*{_PARTIAL}"))

    def link(self, commit: str, name: str, digest: str) -> Path:
        """Have `name` in the picture of `commit` be the content of `digest`; return it."""
        path = self.folder / "snapshots" / commit / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(self.blob(digest), path.parent))
        fresh.replace(path)
        return path

    def sweep(self) -> None:
        """Remove contents that no snapshot names any more, and the whole when none is left."""
        snapshots = self.folder / "snapshots"
        for folder in sorted(snapshots.rglob("*"), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        commits = set(self.commits)
        if not commits:
            shutil.rmtree(self.folder)
            return
        named = {path.resolve() for path in snapshots.rglob("*") if path.is_symlink()}
        for blob in (self.folder / "blobs").glob("*"):
            if blob.resolve() not in named and blob.suffix != _PARTIAL:
                blob.unlink()
        for revision, commit in self.revisions.items():
            if commit not in commits:
                (self.folder / "refs" / revision).unlink()


def files_of(snapshot: Path) -> Mapping[str, int]:
    """Return the files of a snapshot that are really there, with their sizes."""
    return {
        path.relative_to(snapshot).as_posix(): path.stat().st_size
        for path in sorted(snapshot.rglob("*"))
        if path.is_file()
    }


def repositories(cache: Path) -> Iterator[Repository]:
    """Yield every model repository in the cache."""
    for folder in sorted(cache.glob(f"{_PREFIX}*--*")):
        if folder.is_dir():
            yield Repository(cache, folder.name.removeprefix(_PREFIX).replace("--", "/"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it has just become whole
        return 0
