"""How an engine ends, by itself and by force, and what is told when it cannot begin."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from cortex_core.errors import EngineStartFailed, PreflightFailed
from cortex_neuron.engine_process import EngineFailed
from cortex_neuron.exllama.harness import ExLlamaV2Harness
from cortex_neuron.faults import Fault
from tests.exllamav2.engines import CARD, SETTINGS, serving
from tests.exllamav2.tiny_models import write_random


async def test_an_engine_ends_with_its_memory_and_its_socket(tmp_path: Path) -> None:
    """When `stop` returns the process is gone, and nothing lies about."""
    async with serving(write_random(tmp_path / "m")) as engine:
        folder, pid = engine.engine.folder, engine.engine.pid
        assert folder.socket.stat().st_mode & 0o077 == 0
        assert folder.path.stat().st_mode & 0o077 == 0

    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not folder.path.exists()
    assert (await engine.engine.wait()).fault is Fault.STOPPED


async def test_a_killed_engine_is_known_to_be_gone(tmp_path: Path) -> None:
    """Its end has a name, its socket is removed, and whoever waits gets an error."""
    async with serving(write_random(tmp_path / "m")) as engine:
        asking = asyncio.create_task(engine.chat(max_tokens=1500, ignore_eos=True))
        await asyncio.sleep(0.2)
        assert engine.engine.pid is not None
        os.kill(engine.engine.pid, signal.SIGKILL)
        ending = await engine.engine.wait()
        (lost,) = await asyncio.gather(asking, return_exceptions=True)

    assert ending.fault is Fault.CRASHED
    assert isinstance(lost, Exception)
    assert not engine.engine.folder.path.exists()


async def test_a_device_fault_ends_the_engine_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a GPU that answers no more, and its end has a name."""
    fault = tmp_path / "fault"
    monkeypatch.setenv("STAND_IN_FAULT", str(fault))
    async with serving(write_random(tmp_path / "m")) as engine:
        waiting = [
            asyncio.create_task(engine.chat(max_tokens=1500, ignore_eos=True)) for _ in range(3)
        ]
        await engine.until(lambda said: len(said["jobs"]) == 3)
        broke = asyncio.get_running_loop().time()
        fault.write_text("CUDA error: an illegal memory access was encountered")
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        ending = await engine.engine.wait()
        took = asyncio.get_running_loop().time() - broke

    assert ending.fault is Fault.DEVICE
    assert all(isinstance(one, BaseException) or one.status == 503 for one in answers)
    assert took < 2.0


async def test_memory_that_runs_out_costs_the_requests_and_not_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are told apart from everything else, and the next is served."""
    fault = tmp_path / "fault"
    monkeypatch.setenv("STAND_IN_FAULT", str(fault))
    async with serving(write_random(tmp_path / "m")) as engine:
        before = await engine.chat(max_tokens=4)
        fault.write_text("CUDA out of memory. Tried to allocate 2.00 GiB")
        lost = await engine.chat(max_tokens=4)
        fault.unlink()
        after = await engine.chat(max_tokens=4)
        await engine.idle()

    assert (lost.status, lost.error["code"]) == (503, "out_of_memory")
    assert after.body["choices"] == before.body["choices"]


async def test_a_load_that_does_not_fit_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has to know: it is memory, and no fault of the files."""
    fault = tmp_path / "fault"
    fault.write_text("CUDA out of memory. Tried to allocate 2.00 GiB")
    monkeypatch.setenv("STAND_IN_FAULT", str(fault))

    with pytest.raises(EngineFailed) as caught:
        async with serving(write_random(tmp_path / "m")):
            raise AssertionError("it was served")
    assert caught.value.fault is Fault.OUT_OF_MEMORY


async def test_a_broken_model_is_refused_with_its_kind(tmp_path: Path) -> None:
    """What the engine finds out while it loads comes over as what it is."""
    model = write_random(tmp_path / "m")
    lora = tmp_path / "lora"
    lora.mkdir()

    with pytest.raises(PreflightFailed, match="LoRA") as caught:
        async with serving(model, loras=[{"path": str(lora)}]):
            raise AssertionError("it was served")
    assert caught.value.kind == "unsupported_format"


async def test_without_an_extension_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is known at once: no build begins."""
    import importlib.util as finding  # noqa: PLC0415

    from cortex_neuron.exllama import availability  # noqa: PLC0415

    def without(name: str) -> Any:
        return None if name == "exllamav2_ext" else finding.find_spec(name)

    model = write_random(tmp_path / "m")
    harness = ExLlamaV2Harness(SETTINGS)
    spec = harness.configure(harness.probe(model), model_id="m", path=model, devices=[CARD])
    monkeypatch.setattr(availability, "find_spec", without)

    assert "exllamav2_ext" in (harness.unavailable() or "")
    with pytest.raises(EngineStartFailed, match="compiled extension"):
        await harness.start(spec, lambda _done, _of: None)
