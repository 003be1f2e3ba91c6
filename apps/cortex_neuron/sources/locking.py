"""One fetch of a file at a time, over all processes of this machine."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cortex_neuron.sources.fetching import Fetching

_RETRY_SECS = 0.1


@contextmanager
def locked(path: Path, fetching: Fetching) -> Iterator[None]:
    """Hold the lock file `path`; it frees itself when the process dies. Raises FetchCancelled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while not _try_lock(descriptor):
            fetching.cancelled.wait(_RETRY_SECS)
            fetching.check()
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
