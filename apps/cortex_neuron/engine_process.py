"""One engine's child process, seen from the daemon.

1. The child reads its task as one JSON line from stdin and says `{"event": "ready", …}` or
   `{"event": "failed", "error": …}` as one JSON line on stdout. Before that it may say how far it
   is, as often as it likes: `{"event": "progress", "done": 3, "total": 7}`; after it, that its
   device has failed under it: `{"event": "fault", "error": …}`.
2. Its stdin stays open as long as the daemon lives: the end of it tells the child to go. So does
   the kernel, where it can (PR_SET_PDEATHSIG). Nothing outlives the daemon.
3. It has a session of its own, so Ctrl-C in a terminal reaches the daemon alone.
4. Whatever happens while it starts, cancelling included, it is dead and reaped when `start` raises.
5. What it writes to stderr is read always: for our log, never for a client.
6. A child that says its device has failed, in an event or on stderr, is killed at once: whoever
   waits for its answers must not wait for its timeouts.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog

from cortex_core.errors import EngineStartFailed
from cortex_core.wire import Device
from cortex_neuron.engine_output import EngineOutput
from cortex_neuron.faults import Ending, Fault, ending_of, fault_in
from cortex_neuron.harness import Report

log = structlog.get_logger()

_LONGEST_EVENT = 1 << 20
_LOOK_SECS = 0.5
#: Children that are not ready yet, by title: what they take already is not promised any more.
_starting: dict[str, int] = {}


class EngineFailed(EngineStartFailed):
    """The engine said itself why it cannot start. `said` and `tail` are for our eyes only."""

    def __init__(self, message: str, *, said: str, tail: Sequence[str]) -> None:
        super().__init__(message)
        self.said = said
        self.tail = tuple(tail)
        self.fault = fault_in((*tail, said)) or Fault.CRASHED


def python_module(module: str) -> tuple[str, ...]:
    """Return the command that runs `module` as this interpreter would import it."""
    return (sys.executable, "-P", "-m", module)


def child_environment(environment: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with `extra`, and with this process's import path."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**environment, "PYTHONPATH": path, **extra}


def device_environment(devices: Sequence[Device]) -> dict[str, str]:
    """Return the variables that show a child these devices and no others, in NVML's order.

    By UUID, which also names a MIG instance and stays true when a card falls off the bus.
    """
    shown = [d.uuid or str(d.index) for d in devices if d.kind != "cpu"]
    return {"CUDA_VISIBLE_DEVICES": ",".join(shown), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def starting() -> Mapping[str, int]:
    """Return the processes of engines that are not ready yet, by title."""
    return _starting


class EngineProcess:
    """A child that said it is ready."""

    def __init__(self, process: asyncio.subprocess.Process, title: str) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise TypeError("an engine is started with pipes")
        self._process = process
        self._stdin, self._stdout = process.stdin, process.stdout
        self._title = title
        self._ending: Ending | None = None
        self._swept = False
        self._output = EngineOutput(title, self._poisoned)
        self._drains = [asyncio.create_task(self._output.read(process.stderr))]
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
        report: Report = lambda _done, _total: None,
    ) -> "EngineProcess":
        """Return the child once it is ready; `report` hears how far it is.

        Raises EngineStartFailed.
        """
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
        _starting[title] = child.pid
        try:
            async with asyncio.timeout(timeout_secs):
                await child._introduce(task, report)
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
        finally:
            _starting.pop(title, None)
        return child

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.returncode is None

    async def wait(self) -> Ending:
        """Return, once the child has ended, how it did; whatever it started has ended too."""
        code = await self._exit()
        if self._ending is None:
            with suppress(TimeoutError):  # somebody else may hold its stderr open
                async with asyncio.timeout(1):
                    await asyncio.wait(self._drains[:1])
        if self._ending is None:  # nobody else who waited was faster
            self._ending = ending_of(code, self._output.lines)
            self._log_output(self._ending.reason)
        return self._ending

    def kill(self, ending: Ending) -> None:
        """End the child this instant; `wait` returns `ending`."""
        if self.alive and self._ending is None:
            self._ending = ending
            self._log_output(ending.reason)
            self._signal(signal.SIGKILL)

    async def stop(self, timeout_secs: float) -> None:
        """Ask the child to end, make it after `timeout_secs`; it is reaped when this returns."""
        if self.alive and self._ending is None:
            self._ending = Ending(Fault.STOPPED, "it was stopped")
        try:
            if timeout_secs > 0:
                self._signal(signal.SIGTERM)
                async with asyncio.timeout(timeout_secs):
                    await self._exit()
        except TimeoutError:
            log.warning("engine.killed", model=self._title, waited_secs=timeout_secs)
        finally:
            self._signal(signal.SIGKILL)
            await self._exit()
            await self._close()

    async def _introduce(self, task: Mapping[str, Any], report: Report) -> None:
        """Hand the task over and read the answer."""
        # Where it is dead already, its stdout says so, too.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._stdin.write(json.dumps(task).encode() + b"\n")
            await self._stdin.drain()
        while (event := await self._next_event()).get("event") == "progress":
            _tell(event, report)
        match event.get("event"):
            case "ready":
                self.ready = event
                self._drains.append(asyncio.create_task(self._listen()))
            case "failed":
                await self._ended_by_itself()
                said = str(event.get("error") or "")
                self._log_output(said)
                raise EngineFailed(
                    "the engine cannot load this model", said=said, tail=self._output.lines
                )
            case _:
                reason = await self._ended_by_itself()
                self._log_output(reason)
                raise EngineFailed(
                    f"the engine ended while it started: {reason}",
                    said=reason,
                    tail=self._output.lines,
                )

    async def _next_event(self) -> Mapping[str, Any]:
        """Return what the child says next; nothing when it has ended or talks nonsense."""
        try:
            line = await self._stdout.readline()
        except ValueError:  # a line beyond the limit
            return {}
        return _parse_event(line)

    async def _listen(self) -> None:
        """Hear what a child that is ready still says; skip what is no event."""
        while not self._stdout.at_eof():
            event = await self._next_event()
            if event.get("event") == "fault":
                self._poisoned(str(event.get("error") or "the engine said so"))

    def _poisoned(self, why: str) -> None:
        self.kill(Ending(Fault.DEVICE, f"its device failed: {why}"))

    async def _ended_by_itself(self) -> str:
        """Return how the child ended, with all that it had to say; make it end if it does not."""
        try:
            async with asyncio.timeout(2):
                await asyncio.gather(self._exit(), self._drains[0])
        except TimeoutError:
            self._signal(signal.SIGKILL)
        return ending_of(await self._exit(), self._output.lines).reason

    async def _exit(self) -> int:
        """Return the child's exit code, once it and whatever it started have ended.

        Waiting for a process also waits for its pipes, which its own children may hold open.
        """
        waiting = asyncio.ensure_future(self._process.wait())
        try:
            while self._process.returncode is None:
                await asyncio.wait([waiting], timeout=_LOOK_SECS)
            self._kill_group()
            return await waiting
        finally:
            waiting.cancel()

    async def _close(self) -> None:
        self._stdin.close()
        for task in self._drains:
            task.cancel()
        await asyncio.gather(*self._drains, return_exceptions=True)

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            # It may have ended by itself and be about to be reaped.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _kill_group(self) -> None:
        """End what a dead child leaves behind; once: its number may be another's later."""
        if self._swept:
            return
        self._swept = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _log_output(self, reason: str) -> None:
        log.info("engine.output", model=self._title, reason=reason, tail=list(self._output.lines))


def _tell(event: Mapping[str, Any], report: Report) -> None:
    done, total = event.get("done"), event.get("total")
    if isinstance(done, int):
        report(done, total if isinstance(total, int) else None)


def _parse_event(line: bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(line or b"{}")
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
