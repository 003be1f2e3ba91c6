"""Start the load generators, each in a process of its own, and take what they print."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from tests.bench.peers import payloads
from tests.bench.peers.client import Load, Seen

WRK_CONNECTIONS = 32
#: Beyond the length of a load: for its start and for the last answers.
_SPARE_SECS = 120.0

_SCRIPT = """\
wrk.method = "POST"
wrk.path = "{path}"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer sk-bench"
wrk.body = [==[{body}]==]
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\n{{"answers":%d,"secs":%f,"p50_ms":%f,"p99_ms":%f,"errors":%d}}\\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hammered:
    """What wrk saw."""

    answers: int
    secs: float
    p50_ms: float
    p99_ms: float
    errors: int


def hammer(port: int, secs: float) -> Hammered:
    """Ask for whole answers as fast as they come. Raises RuntimeError when wrk does not run."""
    body = payloads.body(stream=False, chunks=16).decode()
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("there is no wrk")
    with TemporaryDirectory(prefix="cortex-wrk-") as folder:
        script = Path(folder) / "chat.lua"
        script.write_text(_SCRIPT.format(path=payloads.CHAT, body=body))
        length = f"{max(1, round(secs))}s"
        argv = [program, "-t1", f"-c{WRK_CONNECTIONS}", f"-d{length}", "--timeout", "30s"]
        said = _output([*argv, "-s", str(script), f"http://127.0.0.1:{port}"], secs)
    return Hammered(**orjson.loads(said.strip().rpartition(b"\n")[2]))


def stream(load: Load) -> Seen:
    """Run one load of our own client. Raises RuntimeError when it ends badly."""
    argv = [sys.executable, "-m", "tests.bench.peers.client", orjson.dumps(asdict(load)).decode()]
    return Seen.read(_output(argv, load.secs + load.ramp_secs if load.secs else None))


def in_words(errors: Mapping[str, int]) -> str:
    """Return errors as a sentence."""
    return ", ".join(f"{count}× {error}" for error, count in errors.items()) or "none"


def _output(argv: list[str], secs: float | None) -> bytes:
    within = None if secs is None else secs + _SPARE_SECS
    try:
        ran = subprocess.run(argv, capture_output=True, check=True, timeout=within)
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"{argv[0]}: {error.stderr.decode(errors='replace')[-500:]}") from error
    return ran.stdout
