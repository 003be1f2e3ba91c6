"""Loads that wait for memory: residents give way in time, and nobody is cut off."""

import asyncio

import pytest

from cortex_core.errors import InsufficientVram, ModelNotFound, Unavailable
from cortex_router import Status, Swapping
from tests.apps.cortex_neuron.desk import desk, intent, load, until

#: Nobody has to have been there for any time.
AT_ONCE = Swapping(amortise=0.0, linger_secs=0.0)


async def test_an_intent_with_room_starts_at_once() -> None:
    """There is nothing to wait for."""
    node = desk()

    answer = await node.registry.load(intent("a", wait=True))

    assert answer.status == "loaded"
    await node.registry.close(0)


async def test_an_idle_resident_of_the_same_class_leaves_for_an_intent() -> None:
    """No list of victims is needed: the node knows who is idle."""
    node = desk(sizes={"a": 12, "b": 12}, swapping=AT_ONCE)
    await node.registry.load(load("a"))

    answer = await node.registry.load(intent("b", wait=True))

    assert answer.status == "loaded"
    assert node.status("a") is None
    await node.registry.close(0)


async def test_a_resident_in_use_closes_ends_its_work_and_leaves() -> None:
    """The intent is queued; nobody is cut off; newcomers hear 503 meanwhile."""
    node = desk(sizes={"a": 12, "b": 12}, swapping=AT_ONCE)
    await node.registry.load(load("a"))
    resident = node.registry.residents["a"]

    async with resident.admission.seat():
        coming = asyncio.create_task(node.registry.load(intent("b", wait=True)))
        await until(lambda: resident.closed_for == "b")
        with pytest.raises(Unavailable):
            async with resident.admission.seat():
                pass
        assert not node.world.engines["a"].ended.is_set()
        assert resident.row().status == "unloading"
        again = asyncio.create_task(node.registry.load(intent("b")))
        await until(lambda: again.done() or node.status("b") is Status.QUEUED)
    answer = await coming

    assert answer.status == "loaded"
    assert node.status("a") is None
    await again
    await node.registry.close(0)


async def test_a_queued_intent_is_told_its_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """First come, first in line."""
    monkeypatch.setattr("cortex_neuron.registry.DECIDE_SECS", 0.05)
    node = desk(sizes={"a": 12, "b": 12, "c": 12}, swapping=AT_ONCE)
    await node.registry.load(load("a"))

    async with node.registry.residents["a"].admission.seat():
        first = await node.registry.load(intent("b", oldest_secs=2.0))
        second = await node.registry.load(intent("c", oldest_secs=1.0))
        assert (first.status, first.position) == ("queued", 1)
        assert (second.status, second.position) == ("queued", 2)
    await until(lambda: node.status("b") is Status.LOADED or node.status("c") is Status.LOADED)

    assert node.world.said.index("start b") > node.world.said.index("start a")
    await node.registry.close(0)


async def test_an_intent_that_nobody_repeats_lapses_and_the_resident_serves_on() -> None:
    """Its clients have gone; the model that made way takes requests again."""
    node = desk(sizes={"a": 12, "b": 12}, swapping=AT_ONCE, lapse_secs=0.0)
    await node.registry.load(load("a"))
    resident = node.registry.residents["a"]

    async with resident.admission.seat():
        with pytest.raises(Unavailable, match="nobody waits"):
            await node.registry.load(intent("b"))
        await until(lambda: resident.closed_for is None)

    async with resident.admission.seat():
        assert node.status("a") is Status.LOADED
    await node.registry.close(0)


async def test_an_intent_that_is_withdrawn_lets_the_resident_serve_on_at_once() -> None:
    """The last client hung up: nobody else has to wait for its time to lapse."""
    node = desk(sizes={"a": 12, "b": 12}, swapping=AT_ONCE)
    await node.registry.load(load("a"))
    resident = node.registry.residents["a"]

    async with resident.admission.seat():
        coming = asyncio.create_task(node.registry.load(intent("b")))
        await until(lambda: resident.closed_for == "b")
        await node.registry.load(intent("b", count=0))
        await until(lambda: resident.closed_for is None)
        with pytest.raises(Unavailable):
            await coming

    with pytest.raises(ModelNotFound):
        await node.registry.load(intent("never", count=0))
    assert node.status("a") is Status.LOADED
    await node.registry.close(0)


async def test_a_higher_class_never_gives_way() -> None:
    """Refused at once with the arithmetic, instead of a wait without an end."""
    node = desk(sizes={"a": 12, "b": 12}, swapping=AT_ONCE)
    await node.registry.load(intent("a", wait=True, priority=200))

    with pytest.raises(InsufficientVram) as refused:
        await node.registry.load(intent("b"))

    assert refused.value.extra["needed_mb"] == 12
    assert node.status("a") is Status.LOADED
    await node.registry.close(0)


async def test_a_model_at_home_stays() -> None:
    """Pinned here is pinned here, whatever the class."""
    node = desk(sizes={"a": 12, "b": 12}, swapping=AT_ONCE)
    await node.registry.load(intent("a", wait=True, priority=0, pinned=True))

    with pytest.raises(InsufficientVram):
        await node.registry.load(intent("b"))

    await node.registry.close(0)


async def test_an_unload_while_it_waits_takes_an_intent_out() -> None:
    """Nothing of it is left."""
    node = desk(sizes={"a": 12, "b": 12}, swapping=AT_ONCE)
    await node.registry.load(load("a"))

    async with node.registry.residents["a"].admission.seat():
        coming = asyncio.create_task(node.registry.load(intent("b", wait=True)))
        await until(lambda: node.status("b") is Status.QUEUED)
        await node.registry.unload("b", 0)
        with pytest.raises(Unavailable):
            await coming
        await until(lambda: node.registry.residents["a"].closed_for is None)

    assert list(node.world.ledger.held) == ["a"]
    await node.registry.close(0)


async def test_a_closing_model_serves_its_queue_first() -> None:
    """They came before it was told to make way."""
    node = desk(sizes={"a": 12, "b": 12}, swapping=AT_ONCE)
    await node.registry.load(load("a"))
    resident = node.registry.residents["a"]
    resident.admission.serve(1)
    served: list[str] = []

    async def queued() -> None:
        async with resident.admission.seat():
            served.append("queued")

    async with resident.admission.seat():
        waiter = asyncio.create_task(queued())
        await until(lambda: resident.admission.queue_depth == 1)
        coming = asyncio.create_task(node.registry.load(intent("b", wait=True)))
        await until(lambda: resident.closed_for == "b")
    await waiter
    await coming

    assert served == ["queued"]
    assert node.status("b") is Status.LOADED
    await node.registry.close(0)


async def test_what_one_gateway_withdraws_the_others_still_want() -> None:
    """Each speaks for its own clients; the load goes when the last of them gives up."""
    node = desk(sizes={"a": 12, "b": 12}, swapping=AT_ONCE)
    await node.registry.load(load("a"))
    resident = node.registry.residents["a"]

    async with resident.admission.seat():
        coming = [
            asyncio.create_task(node.registry.load(intent("b"), gateway))
            for gateway in ("10.0.0.1", "10.0.0.2")
        ]
        await until(lambda: node.status("b") is not None)
        await until(lambda: node.registry.residents["b"].intents.count == 2)
        await node.registry.load(intent("b", count=0), "10.0.0.1")
        await until(lambda: resident.closed_for == "b")
        one_left = node.registry.residents["b"].intents.count
        await node.registry.load(intent("b", count=0), "10.0.0.2")
        await until(lambda: resident.closed_for is None)
        refused = await asyncio.gather(*coming, return_exceptions=True)

    assert one_left == 1
    assert [type(one) for one in refused] == [Unavailable, Unavailable]
    assert node.status("a") is Status.LOADED
    await node.registry.close(0)
