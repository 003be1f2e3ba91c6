"""One run of an agent against a cortex whose only node follows a script."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orjson import JSONDecodeError, loads

from cortex_dialects.sse import FrameSplitter, json_payload
from tests.agents.agent import Agent
from tests.agents.scripted_node import (
    CONTENT,
    FILE,
    FINAL_TEXT,
    FIRST_TEXT,
    MODEL,
    TASK,
    Fault,
    Script,
    scripted_node,
    turn_events,
)
from tests.agents.wiretap import Seen, wiretap
from tests.fleet.processes import workbench

RUN_SECS = 150.0
#: Short, so that a silent node is given up soon.
TIMEOUTS = {"idle": 1.0, "first_byte": 2.0, "hold_headers_secs": 0.3}
_INFERENCE = ("/v1/messages", "/v1/responses")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What an agent did. `exit_status` is None when its time was over."""

    fault: Fault | None
    exit_status: int | None
    text: str | None
    file: str | None
    secs: float
    seen: tuple[Seen, ...]
    turns: tuple[int, ...]
    printed: str

    @property
    def finished(self) -> bool:
        """The task was done, once, and the agent said so."""
        done = (self.exit_status, self.file, self.text)
        return done == (0, f"{CONTENT}\n", "".join(FINAL_TEXT))

    def steps(self) -> list[str]:
        """Return the requests for an answer, each with how it ended and how long after it began."""
        asked = [one for one in self.seen if one.path.partition("?")[0] in _INFERENCE]
        return [
            f"{_how(one)} → {ending(one)}" + (f" (+{one.at - before.at:.1f} s)" if before else "")
            for before, one in zip([None, *asked], asked, strict=False)
        ]

    def as_json(self) -> dict[str, Any]:
        """Return what a report shows."""
        return {
            "fault": describe(self.fault),
            "finished": self.finished,
            "exit_status": self.exit_status,
            "secs": round(self.secs, 1),
            "requests": self.steps(),
            "turns_at_the_node": list(self.turns),
            **({} if self.finished else {"printed": self.printed[-1000:]}),
        }


def run(
    agent: Agent, packages: Path, folder: Path, fault: Fault | None = None, prompt: str = TASK
) -> Trial:
    """Run an agent in a home and a project of its own below `folder`, which is empty."""
    home, project, daemons, rest = (
        folder / name for name in ("home", "project", "daemons", "temporary")
    )
    for one in (home, project, daemons, rest):
        one.mkdir(parents=True)
    script = Script(fault)
    with scripted_node(script) as node, workbench(daemons) as bench:
        cortex = bench.cortex(
            {"n1": node.url},
            [{"id": MODEL, "harness": "candle"}],
            {"claude-*": MODEL},
            observation={"poll_secs": 0.2},
            timeouts=TIMEOUTS,
        )
        with wiretap(int(cortex.url.rpartition(":")[2])) as tap:
            began = time.monotonic()
            status, printed = _run(
                [str(agent.executable(packages)), *agent.arguments(tap.url, prompt)],
                {
                    "HOME": str(home),
                    "TMPDIR": str(rest),
                    "PATH": "/usr/bin:/bin",
                    **agent.environment(tap.url),
                },
                project,
            )
            secs = time.monotonic() - began
    written = project / FILE
    return Trial(
        fault=fault,
        exit_status=status,
        text=agent.final_text(printed),
        file=written.read_text() if written.exists() else None,
        secs=secs,
        seen=tuple(tap.seen()),
        turns=tuple(script.turns),
        printed=printed,
    )


def describe(fault: Fault | None) -> str:
    """Return a fault in words."""
    if fault is None:
        return "none"
    events = turn_events(FIRST_TEXT, ("tool", "{}")) if fault.turn == 1 else turn_events(FINAL_TEXT)
    where = f"after {events[fault.sent - 1].name} ({fault.sent})" if fault.sent else "at once"
    often = f", {fault.times} times" if fault.times > 1 else ""
    return f"turn {fault.turn}: {fault.kind.value} {where}{often}"


def ending(seen: Seen) -> str:
    """Return how an answer ended: its status, then the last event of a stream, or its error."""
    if not seen.answer.startswith((b"event:", b"data:", b":")):
        try:
            value = loads(seen.answer)
        except JSONDecodeError:
            return f"{seen.status or 'nothing'}"
        error = value.get("error") or {}
        return " ".join(filter(None, [str(seen.status), error.get("code") or error.get("type")]))
    splitter = FrameSplitter()
    payloads = [json_payload(frame) for frame in splitter.feed(seen.answer)]
    events = [payload for payload in payloads if payload is not None]
    if not events:
        return f"{seen.status}, a stream without events"
    last: dict[str, Any] = events[-1]
    error = last.get("error") or (last.get("response") or {}).get("error") or {}
    code = error.get("code") or error.get("type")
    return f"{seen.status}, {last['type']}" + (f" {code}" if code else "")


def _how(seen: Seen) -> str:
    return "stream" if loads(seen.body).get("stream") else "whole"


def _run(argv: list[str], env: dict[str, str], folder: Path) -> tuple[int | None, str]:
    """Run a program for a bounded time; end it with everything that it started."""
    with subprocess.Popen(
        argv,
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=RUN_SECS)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            status = None
    if status != 0:
        out += b"\n" + err
    return status, out.decode(errors="replace")
