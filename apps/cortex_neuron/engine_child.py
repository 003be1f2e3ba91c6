"""What a child process does to keep its side of the rules of `engine_process`.

It imports the standard library and nothing else: each model pays for what is loaded here.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Any, BinaryIO

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when the daemon dies, however it dies (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def take_stdout() -> BinaryIO:
    """Return stdout for our events alone: whatever a library prints goes to stderr from now on."""
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return events


def read_task() -> dict[str, Any] | None:
    """Return the task on stdin; None when the daemon is gone already."""
    task = json.loads(sys.stdin.buffer.readline() or b"{}")
    if not isinstance(task, dict) or os.getppid() != task.get("parent_pid"):
        return None  # It went away before the kernel knew whom to watch.
    return task


def leave_with_stdin() -> threading.Thread:
    """Start a thread that ends this process when stdin ends."""
    watcher = threading.Thread(target=_leave_with_stdin, name="leave-with-stdin", daemon=True)
    watcher.start()
    return watcher


def say(events: BinaryIO, event: Mapping[str, Any]) -> None:
    """Tell the daemon."""
    events.write(json.dumps(event).encode() + b"\n")


def _leave_with_stdin() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    os._exit(0)
