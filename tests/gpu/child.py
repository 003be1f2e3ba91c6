"""A process of ours that is asked in lines of JSON on its stdin, and answers through a pipe.

Libraries print what they like to stdout, from their import on: that goes where errors go.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from cortex_core.wire import Device
from cortex_neuron.engine_process import child_environment, device_environment

_END_SECS = 30


class Child:
    """The parent's side."""

    def __init__(self, process: subprocess.Popen[str], answers: TextIO) -> None:
        self._process = process
        self._answers = answers

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer. Raises RuntimeError when the child has failed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # It has ended, and said why.
        if not (line := self._answers.readline()):
            raise RuntimeError(
                f"{self._process.args!r} ended without an answer; its errors are above"
            )
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise RuntimeError(said["error"])
        return said


@contextmanager
def child(module: str, devices: Sequence[Device]) -> Iterator[Child]:
    """Run a module that sees these devices only, for as long as the block lasts."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(writing)],
        stdin=subprocess.PIPE,
        stdout=2,
        pass_fds=[writing],
        env=child_environment(os.environ, device_environment(devices)),
        text=True,
    )
    os.close(writing)
    answers = os.fdopen(reading)
    try:
        yield Child(process, answers)
    finally:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(_END_SECS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        answers.close()


def answer(questions: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer line by line until stdin ends, into the pipe that the first argument names."""
    answers = os.fdopen(int(sys.argv[1]), "w")
    for line in sys.stdin:
        try:
            said = questions(json.loads(line))
        except Exception as error:  # noqa: BLE001  # the parent says it
            said = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(said) + "\n")
        answers.flush()
