"""Engines that die, hang, run out of memory or lose their device: what becomes of their models."""

import asyncio

import pytest

from cortex_core.errors import EngineStartFailed, InsufficientVram, Unavailable
from cortex_neuron.engine_process import EngineFailed
from cortex_neuron.faults import Ending, Fault
from cortex_neuron.meters import SILENT
from cortex_neuron.supervision import Restarts
from cortex_router import Status
from tests.apps.cortex_neuron.desk import Desk, desk, load, until

QUICK = Restarts(first_pause_secs=0.001, crashes_before_giving_up=4)


def failed(tail: str) -> EngineFailed:
    """What a start raises whose engine said this last."""
    return EngineFailed("the engine ended while it started", said="", tail=(tail,))


async def crash(node: Desk, ending: Ending | None = None) -> None:
    """End the engine of `m`."""
    node.world.engines["m"].kill(ending or Ending(Fault.CRASHED, "killed"))
    await until(lambda: node.status("m") is not Status.LOADED)


async def test_an_engine_out_of_memory_at_load_is_a_load_that_did_not_fit() -> None:
    """409 with the arithmetic, nothing held, and it can be asked for again at once."""
    node = desk(failures=[failed("CUDA out of memory")], sizes={"m": 8})
    with pytest.raises(InsufficientVram) as refused:
        await node.registry.load(load("m"))
    held = dict(node.world.ledger.held)
    again = await node.registry.load(load("m"))

    facts = refused.value.extra
    assert (facts["reason"], facts["needed_mb"]) == ("out_of_memory", 8)
    assert facts["per_device"][0]["total_mb"] == 20
    assert held == {}
    assert again.status == "loaded"
    await node.registry.close(0)


async def test_a_failed_restart_counts_like_a_crash_and_is_tried_again() -> None:
    """The model stays recovering until one succeeds."""
    node = desk(restarts=QUICK)
    await node.registry.load(load("m"))
    node.world.failures = [failed("CUDA out of memory"), EngineStartFailed("too slow")]
    await crash(node)
    await until(lambda: node.status("m") is Status.LOADED)

    assert node.world.said.count("start m") == 4
    assert len(node.registry.residents["m"].crashes) == 3
    await node.registry.close(0)


async def test_failed_restarts_are_counted_against_the_budget() -> None:
    """Four in all, and the model is given up, with its memory."""
    node = desk(restarts=QUICK)
    await node.registry.load(load("m"))
    node.world.failures = [failed("boom") for _ in range(9)]
    await crash(node)
    await until(lambda: node.status("m") is Status.FAILED)

    assert len(node.world.failures) == 6
    assert node.world.ledger.held == {}


async def test_without_a_device_there_is_no_restart() -> None:
    """It would fail in the same way; others may have a device."""
    node = desk(restarts=QUICK)
    await node.registry.load(load("m"))
    await crash(node, Ending(Fault.NO_DEVICE, "no CUDA-capable device"))
    await until(lambda: node.status("m") is Status.FAILED)

    assert node.world.said.count("start m") == 1
    failure = node.registry.residents["m"].failure
    assert isinstance(failure, Unavailable)
    assert failure.code == "device_failed"


async def test_a_failed_device_ends_its_engines_and_nothing_is_started_on_it() -> None:
    """At once, and the model's row says why."""
    node = desk(restarts=QUICK)
    await node.registry.load(load("m"))
    node.world.broken = "XID 79: the GPU has fallen off the bus"
    node.registry.device_failed(1, "another one")
    untouched = node.status("m")
    node.registry.device_failed(0, node.world.broken)
    await until(lambda: node.status("m") is Status.FAILED)
    (row,) = node.registry.rows()

    assert untouched is Status.LOADED
    assert node.world.engines["m"].ending.fault is Fault.DEVICE
    assert "XID 79" in str(row.error)
    assert node.world.said.count("start m") == 1


async def test_meters_that_are_silent_for_a_while_cost_no_model() -> None:
    """Nothing is started blindly; once they answer again it is."""
    node = desk(restarts=QUICK)
    await node.registry.load(load("m"))
    node.world.broken = SILENT
    await crash(node)
    await until(lambda: len(node.registry.residents["m"].crashes) == 2)
    blind = node.world.said.count("start m")
    node.world.broken = None
    await until(lambda: node.status("m") is Status.LOADED)

    assert blind == 1
    await node.registry.close(0)


async def test_the_memory_of_a_dead_engine_stays_promised_to_its_model() -> None:
    """Nobody else gets it while the model recovers."""
    node = desk(restarts=Restarts(first_pause_secs=0.2), sizes={"m": 12, "n": 12})
    await node.registry.load(load("m"))
    await crash(node)
    with pytest.raises(InsufficientVram):
        await node.registry.load(load("n"))
    await until(lambda: node.status("m") is Status.LOADED)
    await node.registry.close(0)


async def test_a_hung_engine_is_killed_and_comes_back() -> None:
    """Only while it is busy: an idle engine that does not answer is nobody's concern."""
    node = desk(restarts=QUICK, hang_secs=0.08)
    await node.registry.load(load("m"))
    engine = node.world.engines["m"]
    engine.pid, engine.silent = 2**22 + 1, True
    await asyncio.sleep(0.2)
    idle = engine.ended.is_set()
    async with node.registry.residents["m"].admission.seat():
        await until(engine.ended.is_set)
    await until(lambda: node.status("m") is Status.LOADED)

    assert not idle
    assert engine.ending.fault is Fault.HUNG
    await node.registry.close(0)


async def test_a_stranger_who_takes_what_was_evicted_for_a_load_stops_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine is not started into memory that is not there."""
    monkeypatch.setattr("cortex_neuron.supervision.MEMORY_BACK_SECS", 0.05)
    monkeypatch.setattr("cortex_neuron.supervision.MEMORY_LOOK_SECS", 0.01)
    node = desk(sizes={"a": 12, "b": 12})
    await node.registry.load(load("a"))
    stop = node.world.engines["a"].stop

    async def stop_and_take(timeout_secs: float) -> None:
        await stop(timeout_secs)
        node.world.foreign = 15

    node.world.engines["a"].stop = stop_and_take  # type: ignore[method-assign]
    with pytest.raises(InsufficientVram) as refused:
        await node.registry.load(load("b", evict=("a",)))

    assert refused.value.extra["reason"] == "memory_not_back"
    assert refused.value.extra["free_mb"] == 5
    assert "start b" not in node.world.said
    assert node.world.ledger.held == {}


async def test_an_engine_that_says_nothing_is_as_far_as_what_it_holds() -> None:
    """Of what it is reckoned to need, and never done before it says so."""
    node = desk(hold=asyncio.Event(), sizes={"m": 8}, mute=True)
    loading = asyncio.create_task(node.registry.load(load("m")))
    await until(lambda: "start m" in node.world.said)
    resident = node.registry.residents["m"]
    shares = list[float | None]()
    for held in (2, 8, 80):
        resident.holds(held)
        shares.append(node.registry.rows()[0].progress.share)  # type: ignore[union-attr]
    assert node.world.hold is not None
    node.world.hold.set()
    await loading
    resident.holds(7)

    assert shares == [0.25, 0.99, 0.99]
    assert node.registry.rows()[0].vram_used_mb == 7
    await node.registry.close(0)


async def test_how_far_an_engine_is_shows_in_the_row() -> None:
    """As a share, whatever it counts in."""
    node = desk(hold=asyncio.Event())
    loading = asyncio.create_task(node.registry.load(load("m")))
    await until(lambda: "start m" in node.world.said)
    (row,) = node.registry.rows()
    assert node.world.hold is not None
    node.world.hold.set()
    await loading

    assert row.progress is not None
    assert (row.progress.phase, row.progress.share) == ("loading", 0.25)
    await node.registry.close(0)
