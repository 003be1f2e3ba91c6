"""The engine's process never outlives the daemon that started it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil

from cortex_neuron.engine_process import child_environment
from tests.demo_model import demo_model_path

PARENT = """
import asyncio, sys
from cortex_uplink.logs import configure_logs
from tests.apps.cortex_neuron.llamacpp.test_harness import spec, start
from tests.demo_model import demo_model_path

async def main():
    configure_logs()
    engine = await start(spec(demo_model_path()))
    print(engine.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_no_engine_outlives_a_killed_daemon(tmp_path: Path) -> None:
    """SIGKILL to the parent ends the engine at once."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with _parent(script) as parent:
        assert parent.stdout is not None
        engine = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs([engine], timeout=5)

    assert alive == []


def test_no_engine_outlives_a_daemon_killed_while_it_loads(tmp_path: Path) -> None:
    """Also before it ever said it was ready."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    with _parent(script) as parent:
        watched, waiting = psutil.Process(parent.pid), threading.Event()
        while not (engines := watched.children()):
            waiting.wait(0.005)
        parent.kill()
        parent.wait()
        _, alive = psutil.wait_procs(engines, timeout=5)

    assert alive == []


def _parent(script: Path) -> "subprocess.Popen[str]":
    here = {"CORTEX_TEST_MODEL": str(demo_model_path())}
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env=child_environment(os.environ, here),
        cwd=Path.cwd(),
    )
