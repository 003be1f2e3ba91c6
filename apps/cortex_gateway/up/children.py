"""The two daemons as child processes that never outlive `cortex up`.

Each runs in its own session, so that a Ctrl-C reaches only us and the order of leaving is ours. Its
stdin is a pipe that we hold: should we be killed, the pipe ends and the daemon drains and leaves.
"""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Final, Self

from cortex_core.commands import Failure

TAIL_LINES: Final = 15
_TAIL_BYTES: Final = 16384


class Child:
    """A running daemon, its name and its log."""

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", log: BinaryIO, path: Path
    ) -> None:
        self.name = name
        self.log_path = path
        self._process = process
        self._log = log

    @classmethod
    def start(
        cls, name: str, command: tuple[str, ...], environment: Mapping[str, str], log: Path
    ) -> Self:
        """Start `command` with its output in `log`. Raises Failure."""
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            # A new file, not a shortened one: another run may still write to the old.
            log.unlink(missing_ok=True)
            file = log.open("a+b", buffering=0)
        except OSError as error:
            raise Failure(f"cannot write the log {log}: {error}. Set XDG_STATE_HOME") from error
        try:
            process = subprocess.Popen(  # noqa: S603
                [*command],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
            )
        except OSError as error:
            file.close()
            raise Failure(f"cannot start {name} ({command[0]}): {error}") from error
        return cls(name, process, file, log)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def ending(self) -> str | None:
        """Return how the process ended, or None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        return f"exit status {code}" if code >= 0 else f"{signal.Signals(-code).name}"

    def tail(self) -> str:
        """Return the last lines of its log, indented."""
        size = os.fstat(self._log.fileno()).st_size
        # pread: the file offset is shared with the child.
        last = os.pread(self._log.fileno(), _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        lines = last.decode(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join(f"  {line}" for line in lines)

    def terminate(self) -> None:
        """Ask it to drain and leave."""
        if self._process.poll() is None:
            self._process.terminate()

    def release(self) -> None:
        """End what is left of it, its own children included, and close pipe and log."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._log.close()
