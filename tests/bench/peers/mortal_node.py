"""The mock node as a process that can be killed, and started again at the same address."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.peers.checking import Wrong, check
from tests.fleet.processes import environment, eventually, free_port

_START_SECS = 30.0


class MortalNode:
    """One mock node. `url` stays what it is."""

    def __init__(self, log: Path) -> None:
        self._port = free_port()
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers as it must."""
        argv = [sys.executable, "-m", "tests.bench.peers.mock_node", str(self._port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )
        eventually(self._answers, within=_START_SECS, every=0.1, what=self._log.read_text())

    def kill(self) -> None:
        """Kill it without a word, if it lives."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            return bool(check(self._port))
        except (OSError, Wrong):
            return False


@contextmanager
def mortal_node(folder: Path, name: str) -> Iterator[MortalNode]:
    """Start a node; it is dead at the end."""
    node = MortalNode(folder / f"{name}.log")
    try:
        node.start()
        yield node
    finally:
        node.kill()
