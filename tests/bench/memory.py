"""What each process holds in memory: resident, and with shared pages divided by sharers."""

from pathlib import Path
from typing import Any

import psutil

from tests.bench.asking import Client
from tests.bench.fleet import MODEL, fleet
from tests.bench.reporting import Cell, Report, Table

TOKENS = 16
SETTLE_SECS = 3.0
METHOD = """\
MiB as the kernel says (Linux: smaps_rollup), {settle:g} s after the last thing happened. idle:
both daemons just started, nothing loaded; loaded: after the first answer; then after {requests}
streamed requests of {tokens} tokens through cortex, one after the other. rss counts shared pages
whole, pss divides them."""


def measure(path: Path, *, requests: int) -> Report:
    """Measure both daemons and the engine."""
    with fleet(path, {}) as running:
        pids = {"neuron": running.neuron.pid, "cortex": running.cortex.pid}
        moments = {"idle": _look(pids)}
        running.load()
        pids["engine"] = running.engine_pid()
        moments["loaded"] = _look(pids)
        client = Client(running.cortex.url, {})
        for number in range(requests):
            client.ask(
                {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": f"{number}: tell me of the sea."}],
                    "max_tokens": TOKENS,
                    "ignore_eos": True,
                }
            )
        client.close()
        moments[f"after {requests}"] = _look(pids)
    rows: list[tuple[Cell, ...]] = [
        (f"{name} {kind}", *(seen.get(name, {}).get(kind) for seen in moments.values()))
        for name in pids
        for kind in ("rss", "pss")
    ]
    return Report(
        name="memory",
        method=METHOD.format(settle=SETTLE_SECS, requests=requests, tokens=TOKENS),
        tables=[Table(title="MiB", columns=("process", *moments), rows=rows)],
        samples=[{"moment": moment, **seen} for moment, seen in moments.items()],
    )


def _look(pids: dict[str, int]) -> dict[str, Any]:
    psutil.cpu_percent(SETTLE_SECS)
    return {name: _held(pid) for name, pid in pids.items()}


def _held(pid: int) -> dict[str, float]:
    process = psutil.Process(pid)
    held = {"rss": process.memory_info().rss / (1 << 20)}
    if Path(f"/proc/{pid}/smaps_rollup").exists():
        held["pss"] = process.memory_full_info().pss / (1 << 20)
    return held
