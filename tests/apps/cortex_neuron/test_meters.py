"""Readings are made off the loop, after they were asked for, and never hold anybody up for long."""

import asyncio
import threading
import time

from cortex_core.settings import DevicesSettings
from cortex_neuron.discovery import probe_machine
from cortex_neuron.meters import SILENT, Meters
from tests.fake_nvml.gpus import H100, RTX_3090, Gpus


def meters(here: Gpus, limit_secs: float = 5.0) -> Meters:
    """The meters of a machine with two cards."""
    here.plug(0, RTX_3090)
    here.plug(1, H100)
    return Meters(probe_machine(DevicesSettings()), limit_secs)


async def test_a_reading_is_newer_than_the_question(here: Gpus) -> None:
    """One that was under way already may not know what has just changed."""
    here.set(delay_ms=20)
    made = meters(here)
    old = asyncio.create_task(made.read({}))
    await asyncio.sleep(0.03)
    here.set(**{"gpu0.used": 7777})
    new = await made.read({})
    await old

    assert new.devices[0].vram_used_mb == 7777


async def test_many_questions_share_a_reading(here: Gpus) -> None:
    """However many ask at once, NVML is asked twice at most."""
    here.set(delay_ms=10)
    made = meters(here)
    first = asyncio.create_task(made.read({}))
    await asyncio.sleep(0.01)
    readings = await asyncio.gather(*(made.read({}) for _ in range(50)))
    await first

    assert len({id(one) for one in readings}) == 1


async def test_the_loop_goes_on_while_nvml_is_slow(here: Gpus) -> None:
    """A reading of half a second takes none of the loop's time."""
    made = meters(here)
    here.set(delay_ms=30)
    reading, longest, before = asyncio.create_task(made.read({})), 0.0, time.monotonic()
    began = before
    while not reading.done():
        await asyncio.sleep(0.001)
        now = time.monotonic()
        longest, before = max(longest, now - before), now

    assert longest < (before - began) / 3
    assert (await reading).devices[0].fault is None


async def test_meters_that_do_not_answer_promise_nothing_and_may_come_back(here: Gpus) -> None:
    """Old numbers stay to be seen, with a fault; and there is one thread in NVML, not many."""
    made = meters(here, limit_secs=0.2)
    await made.read({})
    here.set(delay_ms=400)
    began = time.monotonic()
    silent = await made.read({})
    await made.read({})
    waited = time.monotonic() - began
    threads = [one for one in threading.enumerate() if one.name == "meters"]
    here.set(delay_ms=0)
    async with asyncio.timeout(10):
        while (back := await made.read({})).devices[0].fault is not None:
            pass

    assert waited < 3
    assert len(threads) == 1
    assert [one.fault for one in silent.devices] == [SILENT, SILENT]
    assert (silent.devices[0].vram_free_mb, silent.devices[0].vram_used_mb) == (0, 1024)
    assert back.devices[0].vram_free_mb == 23552


async def test_a_device_that_failed_stays_out_of_use(here: Gpus) -> None:
    """Its meters may say what they like."""
    made = meters(here)
    await made.read({})
    made.fail(1, "XID 79: gone")
    at_once = made.last.devices
    later = (await made.read({})).devices

    for devices in (at_once, later):
        assert (devices[0].fault, devices[0].vram_free_mb) == (None, 23552)
        assert (devices[1].fault, devices[1].vram_free_mb) == ("XID 79: gone", 0)
