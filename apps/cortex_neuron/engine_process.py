"""One engine's child process, seen from the daemon.

1. The child reads its task as one JSON line from stdin and says `{"event": "ready", …}` or
   `{"event": "failed", "error": …}` as one JSON line on stdout.
2. Its stdin stays open as long as the daemon lives: the end of it tells the child to go. So does
   the kernel, where it can (PR_SET_PDEATHSIG). Nothing outlives the daemon.
3. It has a session of its own, so Ctrl-C in a terminal reaches the daemon alone.
4. Whatever happens while it starts, cancelling included, it is dead and reaped when `start` raises.
5. What it writes to stderr is read always and kept briefly: for our log, never for a client.
"""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog

from cortex_core.errors import EngineStartFailed

log = structlog.get_logger()

_KEPT_LINES = 50
_KEPT_LINE = 500
_LONGEST_EVENT = 1 << 20


class EngineFailed(EngineStartFailed):
    """The engine said itself why it cannot start. `said` and `tail` are for our eyes only."""

    def __init__(self, message: str, *, said: str, tail: Sequence[str]) -> None:
        super().__init__(message)
        self.said = said
        self.tail = tuple(tail)


def python_module(module: str) -> tuple[str, ...]:
    """Return the command that runs `module` as this interpreter would import it."""
    return (sys.executable, "-P", "-m", module)


def child_environment(environment: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with `extra`, and with this process's import path."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**environment, "PYTHONPATH": path, **extra}


class EngineProcess:
    """A child that said it is ready."""

    def __init__(self, process: asyncio.subprocess.Process, title: str) -> None:
        self._process = process
        self._title = title
        self._stopping = False
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._drains = [asyncio.create_task(self._drain())]
        self.ready: Mapping[str, Any] = {}

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        task: Mapping[str, Any],
        *,
        title: str,
        environment: Mapping[str, str],
        timeout_secs: float,
    ) -> "EngineProcess":
        """Return the child once it is ready. Raises EngineStartFailed."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=dict(environment),
                start_new_session=True,
                limit=_LONGEST_EVENT,
            )
        except OSError as error:
            log.exception("engine.spawn_failed", model=title)
            raise EngineStartFailed("the node cannot start an engine process now") from error
        child = cls(process, title)
        try:
            async with asyncio.timeout(timeout_secs):
                await child._introduce(task)
        except TimeoutError as error:
            await child.stop(0)
            child._log_output("the engine did not become ready in time")
            raise EngineStartFailed(
                f"the engine was not ready after {timeout_secs:g} s; "
                "raise start_timeout_secs if the model is large and its disk slow"
            ) from error
        except BaseException:
            await child.stop(0)
            raise
        return child

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def wait(self) -> str:
        """Return, once the child has ended, why it did."""
        code = await self._process.wait()
        if self._stopping:
            return "it was stopped"
        reason = _describe(code)
        self._log_output(reason)
        return reason

    async def stop(self, timeout_secs: float) -> None:
        """Ask the child to end, make it after `timeout_secs`; it is reaped when this returns."""
        self._stopping = True
        try:
            if timeout_secs > 0:
                self._signal(signal.SIGTERM)
                async with asyncio.timeout(timeout_secs):
                    await self._process.wait()
        except TimeoutError:
            log.warning("engine.killed", model=self._title, waited_secs=timeout_secs)
        finally:
            self._signal(signal.SIGKILL)
            await self._process.wait()
            await self._close()

    async def _introduce(self, task: Mapping[str, Any]) -> None:
        """Hand the task over and read the answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise TypeError("an engine is started with pipes")
        # Where it is dead already, its stdout says so, too.
        with suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(json.dumps(task).encode() + b"\n")
            await stdin.drain()
        event = _parse_event(await stdout.readline())
        match event.get("event"):
            case "ready":
                self.ready = event
                self._drains.append(asyncio.create_task(_discard(stdout)))
            case "failed":
                await self._ended_by_itself()
                said = str(event.get("error") or "")
                self._log_output(said)
                raise EngineFailed("the engine cannot load this model", said=said, tail=self._lines)
            case _:
                reason = await self._ended_by_itself()
                self._log_output(reason)
                raise EngineFailed(
                    f"the engine ended while it started: {reason}", said=reason, tail=self._lines
                )

    async def _ended_by_itself(self) -> str:
        """Return how the child ended, with all that it had to say; make it end if it does not."""
        try:
            async with asyncio.timeout(2):
                await asyncio.gather(self._process.wait(), self._drains[0])
        except TimeoutError:
            self._signal(signal.SIGKILL)
        return _describe(await self._process.wait())

    async def _drain(self) -> None:
        if self._process.stderr is None:
            raise TypeError("an engine is started with pipes")
        rest = b""
        while chunk := await self._process.stderr.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-_KEPT_LINE:]
            self._lines += [line[:_KEPT_LINE].decode(errors="replace") for line in lines if line]
        if rest:
            self._lines.append(rest.decode(errors="replace"))

    async def _close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        for task in self._drains:
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            # It may have ended by itself and be about to be reaped.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _log_output(self, reason: str) -> None:
        log.info("engine.output", model=self._title, reason=reason, tail=list(self._lines))


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass


def _parse_event(line: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(line or b"{}")
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _describe(code: int) -> str:
    if code >= 0:
        return f"the engine ended with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", perhaps because memory ran out" if -code == signal.SIGKILL else ""
    return f"the engine was killed by {name}{hint}"
