"""The life of an engine's process, with toy engines that take no model."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from cortex_core.errors import EngineStartFailed
from cortex_core.wire import Device
from cortex_neuron.engine_process import (
    EngineFailed,
    EngineProcess,
    child_environment,
    device_environment,
)
from cortex_neuron.faults import Ending, Fault

READY = """
import json, sys, os, signal
task = json.loads(sys.stdin.readline())
print("noise", file=sys.stderr, flush=True)
{middle}
print(json.dumps({{"event": "ready", "url": task["url"]}}), flush=True)
{after}
sys.stdin.read()
"""


def engine(middle: str = "", after: str = "") -> tuple[str, ...]:
    """Return the command of a toy engine."""
    return (sys.executable, "-c", READY.format(middle=middle, after=after))


async def start(command: tuple[str, ...], timeout_secs: float = 20) -> EngineProcess:
    """Start a toy engine."""
    return await EngineProcess.start(
        command,
        {"url": "http://here"},
        title="toy",
        environment=child_environment(os.environ, {}),
        timeout_secs=timeout_secs,
    )


def children() -> list[psutil.Process]:
    """Return everything this process has started and that still runs."""
    return psutil.Process().children(recursive=True)


async def test_an_engine_starts_and_stops() -> None:
    """It says what it has to say, and is gone when `stop` returns."""
    child = await start(engine())
    assert child.ready["url"] == "http://here"
    assert child.alive
    await child.stop(5)

    assert not psutil.pid_exists(child.pid)
    assert (await child.wait()).fault is Fault.STOPPED


async def test_an_engine_that_ignores_sigterm_is_killed() -> None:
    """After the timeout there is no asking."""
    child = await start(engine("signal.signal(signal.SIGTERM, signal.SIG_IGN)"))
    await child.stop(0.2)

    assert not psutil.pid_exists(child.pid)


async def test_stop_takes_the_engines_own_children_along() -> None:
    """The whole process group goes."""
    middle = "import subprocess; child = subprocess.Popen(['sleep', '600'])"
    child = await start(engine(middle))
    grandchildren = psutil.Process(child.pid).children()
    await child.stop(5)
    _, alive = psutil.wait_procs(grandchildren, timeout=5)

    assert len(grandchildren) == 1
    assert alive == []


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "memory ran out"),
        ("sys.exit(3)", "status 3"),
    ],
)
async def test_a_crash_has_a_reason(after: str, words: str) -> None:
    """`wait` returns how the process ended on its own, for everyone who waits."""
    child = await start(engine(after=after))
    first, second = await asyncio.gather(child.wait(), child.wait())
    await child.stop(1)

    assert words in first.reason
    assert first.fault is Fault.CRASHED
    assert first == second


async def test_a_refusal_carries_what_was_said_but_does_not_show_it() -> None:
    """The engine's own words and its stderr are for the log, not for the message."""
    middle = (
        """print(json.dumps({"event": "failed", "error": "bad tensor"}), flush=True); sys.exit(1)"""
    )
    with pytest.raises(EngineFailed) as caught:
        await start(engine(middle))

    assert caught.value.said == "bad tensor"
    assert caught.value.tail == ("noise",)
    assert "tensor" not in caught.value.message
    assert children() == []


@pytest.mark.parametrize(
    "middle", ["sys.exit(4)", "print('nonsense', flush=True)", "print('[1]', flush=True)"]
)
async def test_an_engine_that_never_says_ready_fails(middle: str) -> None:
    """Ended, or talking nonsense: it is an error, and nothing is left."""
    with pytest.raises(EngineStartFailed):
        await start(engine(middle))

    assert children() == []


async def test_an_engine_that_is_too_slow_fails() -> None:
    """The sentence names the setting; the process is gone."""
    with pytest.raises(EngineStartFailed, match="start_timeout_secs"):
        await start(engine("sys.stdin.read()"), timeout_secs=0.3)

    assert children() == []


async def test_a_program_that_is_not_there_fails() -> None:
    """Not even a process comes up."""
    with pytest.raises(EngineStartFailed):
        await start(("/nowhere/engine",))


async def test_cancelling_a_start_leaves_nothing() -> None:
    """The child is killed and reaped before the cancellation goes on."""
    task = asyncio.create_task(start(engine("sys.stdin.read()")))
    while not children():  # noqa: ASYNC110 - processes set no events
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert children() == []


async def test_a_flood_on_stderr_and_stdout_blocks_nobody() -> None:
    """Both are read while the engine runs; only the last lines are kept."""
    flood = (
        "sys.stderr.write('x' * 300_000 + '\\n'); [print(n, file=sys.stderr) for n in range(9000)]"
    )
    after = "sys.stdout.write('y' * 300_000); sys.stdout.flush(); sys.exit(7)"
    child = await start(engine(flood, after))

    assert "status 7" in (await child.wait()).reason
    await child.stop(1)


async def test_progress_is_reported_before_it_is_ready() -> None:
    """As often as the engine likes; what is no number is skipped."""
    said = list[tuple[int, int | None]]()
    middle = "\n".join(
        f"print(json.dumps({event!r}), flush=True)"
        for event in (
            {"event": "progress", "done": 1, "total": 4},
            {"event": "progress", "done": "half"},
            {"event": "progress", "done": 2, "total": None},
        )
    )
    child = await EngineProcess.start(
        engine(middle),
        {"url": "x"},
        title="toy",
        environment=child_environment(os.environ, {}),
        timeout_secs=20,
        report=lambda done, total: said.append((done, total)),
    )
    await child.stop(5)

    assert said == [(1, 4), (2, None)]


@pytest.mark.parametrize(
    "after",
    [
        "print('CUDA error: an illegal memory access', file=sys.stderr, flush=True)",
        "print(json.dumps({'event': 'fault', 'error': 'illegal access'}), flush=True)",
    ],
)
async def test_an_engine_whose_device_failed_is_killed_at_once(after: str) -> None:
    """It need not end by itself: nothing it says from then on is of use."""
    ready = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])"
    child = await start(engine(ready, f"signal.sigwait([signal.SIGUSR1]); {after}"))
    os.kill(child.pid, signal.SIGUSR1)
    ending = await child.wait()

    assert ending.fault is Fault.DEVICE
    assert not child.alive
    await child.stop(1)


async def test_a_device_that_fails_while_it_loads_fails_the_start() -> None:
    """The engine is killed, however it means to go on."""
    said = "print('CUDA error: an illegal memory access', file=sys.stderr, flush=True)"
    with pytest.raises(EngineFailed) as caught:
        await start(engine(f"{said}; signal.pause()"))

    assert caught.value.fault is Fault.DEVICE


async def test_an_engine_that_is_killed_for_a_reason_ends_for_it() -> None:
    """Whoever waits hears why, and not that there was a signal."""
    child = await start(engine())
    child.kill(Ending(Fault.HUNG, "it hangs"))

    assert await child.wait() == Ending(Fault.HUNG, "it hangs")
    await child.stop(1)


async def test_a_crash_takes_what_the_engine_started_along() -> None:
    """Workers of a tensor-parallel engine must not keep its memory."""
    middle = "import subprocess; child = subprocess.Popen(['sleep', '600'])"
    after = "sys.stdin.readline(); os._exit(1)"
    child = await start(engine(middle, after))
    grandchildren = psutil.Process(child.pid).children()
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    _, alive = psutil.wait_procs(grandchildren, timeout=5)
    await child.stop(1)

    assert len(grandchildren) == 1
    assert alive == []


def test_an_engine_sees_its_devices_and_no_others() -> None:
    """By UUID in the order of the bus; on the CPU none at all."""
    cards = (Device(index=1, uuid="GPU-b"), Device(index=2, uuid="MIG-c"))

    assert device_environment(cards) == {
        "CUDA_VISIBLE_DEVICES": "GPU-b,MIG-c",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
    assert device_environment([Device(index=0, kind="cpu")])["CUDA_VISIBLE_DEVICES"] == ""


PARENT = """
import asyncio, os, sys
from cortex_neuron.engine_process import EngineProcess, child_environment
from cortex_uplink.logs import configure_logs

async def main():
    configure_logs()
    child = await EngineProcess.start(
        (sys.executable, "-c", sys.argv[1]), {"url": "x"}, title="toy",
        environment=child_environment(os.environ, {}), timeout_secs=20)
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""


def test_an_engine_ends_when_its_daemon_is_killed(tmp_path: Path) -> None:
    """Its stdin ends with the daemon, however that died."""
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    with subprocess.Popen(
        [sys.executable, str(script), engine()[2]],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(os.environ, {}),
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        _, alive = psutil.wait_procs([child], timeout=5)

    assert alive == []
