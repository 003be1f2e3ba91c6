"""How long one waits: for `cortex up` to be ready and to answer, and for the command itself."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from tests.bench.asking import Client
from tests.bench.reporting import Cell, Report, Table, spread
from tests.fleet.processes import END_SECS, environment

COMMAND_RUNS = 5
CORTEX = Path(sys.executable).with_name("cortex")
METHOD = """\
`cortex up` on free ports with the shipped catalogue; the model's file and the Python files are in
the page cache after one start that is not counted. ready: until it says so (model loaded, cortex
sees it); answered: until the first token of the first answer; left: from SIGINT until everything
has ended.
`cortex version` and an empty Python: median of {runs} after one that is not counted."""
_READY = re.compile(r"ready after")
_API = re.compile(r"OpenAI\s+(\S+)/v1")
_MODEL = re.compile(r"models\s+(\S+) \(loaded\)")


def measure(*, starts: int) -> Report:
    """Measure `cortex up` and `cortex version`."""
    with TemporaryDirectory(prefix="cortex-bench-") as folder:
        _up(Path(folder))
        ups = [_up(Path(folder)) for _ in range(starts)]
    version = _command(str(CORTEX), "version")
    python = _command(sys.executable, "-I", "-c", "pass")
    rows: list[tuple[Cell, ...]] = [
        (f"cortex up: {name}", *spread([one[name] for one in ups])) for name in ups[0]
    ]
    rows += [("cortex version", *spread(version)), ("empty Python", *spread(python))]
    return Report(
        name="startup",
        method=METHOD.format(runs=COMMAND_RUNS),
        tables=[Table(title="seconds", columns=("", "median", "min", "max"), rows=rows)],
        samples=[*ups, {"cortex version": version, "python": python}],
    )


def _up(folder: Path) -> dict[str, float]:
    """Start, ask, end; return the seconds each took."""
    argv = [str(CORTEX), "up", "--port", "0", "--metrics-port", "0", "--neuron-port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment(), "XDG_STATE_HOME": str(folder)},
    )
    try:
        assert process.stdout is not None
        ready, api, model = _follow(process.stdout, began)
        client = Client(api, {})
        asking = time.perf_counter() - began
        asked = client.ask(
            {"model": model, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 8}
        )
        client.close()
        process.send_signal(signal.SIGINT)
        leaving = time.perf_counter()
        process.wait(END_SECS)
        left = time.perf_counter() - leaving
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(END_SECS)
    return {"ready": ready, "answered": asking + asked.first_token_ms / 1000, "left": left}


def _follow(output: IO[str], began: float) -> tuple[float, str, str]:
    """Read on until everything is known. Raises RuntimeError when it ends before."""
    ready, api, text = 0.0, "", ""
    for line in output:
        text += line
        if _READY.search(line):
            ready = time.perf_counter() - began
        elif found := _API.search(line):
            api = found[1]
        elif ready and api and (found := _MODEL.search(line)):
            return ready, api, found[1]
    raise RuntimeError(f"cortex up ended before it was ready:\n{text}")


def _command(*argv: str) -> list[float]:
    took = []
    for _ in range(1 + COMMAND_RUNS):
        began = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))
        took.append(time.perf_counter() - began)
    return took[1:]
