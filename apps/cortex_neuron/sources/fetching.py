"""What every fetch is given: where to keep files, whom to tell, and when to give up."""

import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cortex_core.errors import PreflightFailed


class FetchCancelled(Exception):
    """Whoever asked for the file no longer wants it."""


def _nobody(_done: int, _total: int | None) -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetching:
    """Surroundings of one fetch. `environment` is what programs and clients run with see."""

    cache_dir: Path
    environment: Mapping[str, str]
    report: Callable[[int, int | None], None] = _nobody
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise FetchCancelled once the event is set."""
        if self.cancelled.is_set():
            raise FetchCancelled


def require_space(folder: Path, needed: int) -> None:
    """Raise PreflightFailed `no_space` when `needed` bytes do not fit below `folder`."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise PreflightFailed(
            "no_space",
            f"the model needs {_mib(needed)} MiB in {folder} and {_mib(free)} MiB are free; "
            "make room there, or point cache_dir to a larger disk",
            extra={"needed_mb": _mib(needed), "free_mb": _mib(free)},
        )


def _mib(size: int) -> int:
    return -(-size // 2**20)
