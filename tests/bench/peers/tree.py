"""What the kernel says of a process and everything below it."""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20
_OPEN_FILES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a process tree holds. Shared pages count once for each process that has them."""

    rss_mib: float
    processes: int
    threads: int
    files: int
    sockets: int


def cpu_secs(pid: int) -> float:
    """Return the processor seconds, user and system, of a process tree; ended children included."""
    ticks = 0
    for one in _tree(pid):
        with suppress(OSError):
            # After the name, which is in brackets and may hold anything: utime is field 14.
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process tree."""
    pages = 0
    for one in _tree(pid):
        with suppress(OSError):
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
    return pages * _PAGE / _MIB


def held(pid: int) -> Held:
    """Return everything a process tree holds."""
    processes = threads = files = sockets = 0
    for one in _tree(pid):
        with suppress(OSError):
            processes += 1
            threads += len(list(Path(f"/proc/{one}/task").iterdir()))
            for file in Path(f"/proc/{one}/fd").iterdir():
                files += 1
                with suppress(OSError):
                    sockets += str(file.readlink()).startswith("socket:")
    return Held(
        rss_mib=rss_mib(pid), processes=processes, threads=threads, files=files, sockets=sockets
    )


def raise_open_files() -> None:
    """Let this process and those it starts open as many files as thousands of streams need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _tree(int(child))
