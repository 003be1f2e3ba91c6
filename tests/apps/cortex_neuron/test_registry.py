"""The one writer: one load an id, one step for memory and victims, bounded recovery."""

import asyncio

import pytest

from cortex_core.errors import (
    ApiError,
    InsufficientVram,
    InvalidRequest,
    ModelNotFound,
    PreflightFailed,
    ShuttingDown,
    Unavailable,
)
from cortex_core.wire import LoadRequest, Servable
from cortex_neuron.paging import SharedCache
from cortex_neuron.supervision import Restarts
from cortex_router import Status
from tests.apps.cortex_neuron.desk import desk, load, until


async def test_many_callers_of_one_id_share_one_load() -> None:
    """N callers, one engine, everybody hears `loaded`."""
    node = desk()

    answers = await asyncio.gather(*(node.registry.load(load("m")) for _ in range(10)))

    assert {answer.status for answer in answers} == {"loaded"}
    assert node.world.said == ["prepare m", "start m"]
    await node.registry.close(0)


async def test_loads_of_different_ids_do_not_wait_for_each_other() -> None:
    """The gate is per id."""
    node = desk(hold=asyncio.Event())

    await node.registry.load(load("a", wait=False))
    await node.registry.load(load("b", wait=False))
    await until(lambda: "start b" in node.world.said)

    assert node.status("a") is Status.LOADING
    assert node.world.hold is not None
    node.world.hold.set()
    await node.registry.close(0)


async def test_two_loads_cannot_count_on_the_same_memory() -> None:
    """The second is refused while the first has taken nothing yet, and leaves no trace."""
    node = desk(sizes={"a": 12, "b": 12}, hold=asyncio.Event())
    await node.registry.load(load("a", wait=False))

    with pytest.raises(InsufficientVram):
        await node.registry.load(load("b", wait=False))
    await until(lambda: node.status("b") is None)

    assert list(node.world.ledger.held) == ["a"]
    await node.registry.close(0)


async def test_an_eviction_and_its_load_are_one_step() -> None:
    """The victim has gone before the newcomer starts, and its memory is promised meanwhile."""
    node = desk(sizes={"a": 12, "b": 12})
    await node.registry.load(load("a"))

    await node.registry.load(load("b", evict=("a",)))

    assert (node.status("a"), node.status("b")) == (None, Status.LOADED)
    assert node.world.engines["a"].ended.is_set()
    await node.registry.close(0)


async def test_a_device_that_is_not_there_is_a_mistake_of_the_caller() -> None:
    """Not a lack of memory."""
    node = desk()

    with pytest.raises(InvalidRequest, match="no device 3"):
        await node.registry.load(LoadRequest(model_id="m", devices=(3,)))


async def test_nobody_is_evicted_without_need() -> None:
    """`evict` is a permission, not an order."""
    node = desk(sizes={"a": 8, "b": 8})
    await node.registry.load(load("a"))

    await node.registry.load(load("b", evict=("a",)))

    assert node.status("a") is Status.LOADED
    await node.registry.close(0)


async def test_a_busy_victim_stays() -> None:
    """A gateway's picture may be old; the node's is not."""
    node = desk(sizes={"a": 12, "b": 12})
    await node.registry.load(load("a"))

    async with node.registry.residents["a"].admission.seat():
        with pytest.raises(InsufficientVram) as refused:
            await node.registry.load(load("b", evict=("a",)))

    assert node.status("a") is Status.LOADED
    assert refused.value.extra["evictable"] == []
    await node.registry.close(0)


async def test_a_refused_load_can_be_tried_again_at_once() -> None:
    """A load that did not fit has not failed."""
    node = desk(sizes={"a": 12, "b": 12})
    await node.registry.load(load("a"))
    with pytest.raises(InsufficientVram):
        await node.registry.load(load("b"))

    answer = await node.registry.load(load("b", evict=("a",)))

    assert answer.status == "loaded"
    await node.registry.close(0)


async def test_a_failed_preflight_is_told_and_listed() -> None:
    """Everybody who asked hears why, and the row shows it."""
    node = desk(refusals={"m": PreflightFailed("corrupt", "the file is cut short")})

    with pytest.raises(PreflightFailed):
        await node.registry.load(load("m"))

    (row,) = node.registry.rows()
    assert (row.status, row.error) == ("failed", "the file is cut short")
    with pytest.raises(Unavailable):
        node.registry.serving("m")


async def test_a_row_says_what_a_request_would_be_told() -> None:
    """Both ask the same question of the model, so that nobody is sent where it is refused."""
    node = desk(restarts=Restarts(first_pause_secs=0.01))
    await node.registry.load(load("m"))
    resident = node.registry.residents["m"]
    serving = node.registry.rows()[0].servable

    node.world.hold = asyncio.Event()
    node.world.engines["m"].ended.set()
    await until(lambda: node.status("m") is Status.RECOVERING)
    recovering = node.registry.rows()[0].servable
    with pytest.raises(Unavailable) as refused:
        node.registry.serving("m")
    node.world.hold.set()
    await until(lambda: node.status("m") is Status.LOADED)
    resident.admission.close(Unavailable("the model rests"))
    closed = node.registry.rows()[0].servable

    assert serving == Servable()
    assert recovering == Servable(ok=False, reason="recovering", detail=refused.value.message)
    assert closed == Servable(ok=False, reason="closed", detail="the model rests")
    await node.registry.close(0)


async def test_pages_of_an_engine_are_given_out_with_its_seats() -> None:
    """An engine whose requests share a cache says how much there is of it."""
    cache = SharedCache(tokens=1024, page_tokens=256, context=None, seats=2)
    node = desk(cache=cache)
    await node.registry.load(load("m"))
    admission = node.registry.residents["m"].admission

    async with admission.seat("ada", 3):
        waiting = asyncio.create_task(admission.seat("ben", 2).__aenter__())
        await until(lambda: admission.queue_depth == 1)
    await waiting

    assert (admission.max_in_flight, admission.in_flight) == (2, 1)
    await node.registry.close(0)


async def test_a_crashed_engine_is_started_again() -> None:
    """It shows as recovering, its memory stays promised, and it comes back by itself."""
    node = desk(restarts=Restarts(first_pause_secs=0.01))
    await node.registry.load(load("m"))

    node.world.engines["m"].ended.set()
    await until(lambda: node.status("m") is Status.RECOVERING)
    held = list(node.world.ledger.held)
    with pytest.raises(Unavailable):
        node.registry.serving("m")
    await until(lambda: node.status("m") is Status.LOADED)

    assert held == ["m"]
    assert node.world.said.count("start m") == 2
    await node.registry.close(0)


async def test_an_engine_that_keeps_crashing_is_given_up() -> None:
    """A flapping engine is worse than a dead one; its memory comes back."""
    node = desk(restarts=Restarts(first_pause_secs=0.001, crashes_before_giving_up=3))
    await node.registry.load(load("m"))

    for start in range(1, 4):
        await until(lambda n=start: node.world.said.count("start m") == n)  # type: ignore[misc]
        await until(lambda: node.status("m") is Status.LOADED)
        node.world.engines["m"].ended.set()
        await until(lambda: node.status("m") is not Status.LOADED)
    await until(lambda: node.status("m") is Status.FAILED)

    assert node.world.said.count("start m") == 3
    assert node.world.ledger.held == {}


async def test_pauses_between_restarts_grow() -> None:
    """0.25, 1, 4, 16 seconds."""
    assert [Restarts().pause_secs(n) for n in (1, 2, 3, 4)] == [0.25, 1, 4, 16]


async def test_an_unload_waits_for_requests_and_refuses_newcomers() -> None:
    """Drain, then gone."""
    node = desk()
    await node.registry.load(load("m"))
    admission = node.registry.residents["m"].admission

    async with admission.seat():
        leaving = asyncio.create_task(node.registry.unload("m", 5))
        await until(lambda: node.status("m") is Status.UNLOADING)
        with pytest.raises(Unavailable):
            async with admission.seat():
                pass
        running = not node.world.engines["m"].ended.is_set()
    await leaving

    assert running
    assert node.registry.rows() == []
    with pytest.raises(ModelNotFound):
        node.registry.serving("m")


async def test_an_unload_during_the_load_abandons_it() -> None:
    """No engine is left behind, nobody waits for ever, and the memory is free."""
    node = desk(hold=asyncio.Event())
    loading = asyncio.create_task(node.registry.load(load("m")))
    await until(lambda: "start m" in node.world.said)

    await node.registry.unload("m", 0)

    with pytest.raises(ApiError):
        await loading
    assert node.world.ledger.held == {}
    assert node.registry.rows() == []


async def test_a_load_during_the_unload_waits_for_its_end() -> None:
    """And then starts afresh."""
    node = desk()
    await node.registry.load(load("m"))
    async with node.registry.residents["m"].admission.seat():
        leaving = asyncio.create_task(node.registry.unload("m", 5))
        await until(lambda: node.status("m") is Status.UNLOADING)
        again = asyncio.create_task(node.registry.load(load("m")))
        await asyncio.sleep(0)
    await leaving

    assert (await again).status == "loaded"
    assert node.world.said.count("start m") == 2
    await node.registry.close(0)


async def test_an_idle_model_leaves_after_its_time() -> None:
    """Only when it is idle, and only when a time was given."""
    node = desk(sizes={"kept": 4, "brief": 4})
    await node.registry.load(load("kept"))
    await node.registry.load(LoadRequest(model_id="brief", keep_alive_secs=10))
    brief = node.registry.residents["brief"]
    assert brief.loaded_at is not None

    node.registry.unload_idle(brief.loaded_at + 9)
    async with brief.admission.seat():
        node.registry.unload_idle(brief.loaded_at + 11)
    still = node.status("brief")
    node.registry.unload_idle(brief.loaded_at + 11)
    await until(lambda: node.status("brief") is None)

    assert still is Status.LOADED
    assert node.status("kept") is Status.LOADED
    await node.registry.close(0)


async def test_a_closing_node_unloads_everything_and_takes_nothing_new() -> None:
    """The end of a daemon's life."""
    node = desk(sizes={"a": 4, "b": 4})
    await node.registry.load(load("a"))
    await node.registry.load(load("b"))

    await node.registry.close(0)

    assert node.registry.rows() == []
    assert all(engine.ended.is_set() for engine in node.world.engines.values())
    with pytest.raises(ShuttingDown):
        await node.registry.load(load("c"))


async def test_a_request_may_keep_a_model_longer_or_let_it_go() -> None:
    """Whoever used it last said for how long."""
    node = desk(sizes={"m": 4})
    await node.registry.load(LoadRequest(model_id="m", keep_alive_secs=10))
    resident = node.registry.residents["m"]
    assert resident.loaded_at is not None

    resident.keep_alive_secs = float("inf")
    node.registry.unload_idle(resident.loaded_at + 1e9)
    kept = node.status("m")
    resident.keep_alive_secs = 0.0
    node.registry.unload_idle(resident.loaded_at)
    await until(lambda: node.status("m") is None)

    assert kept is Status.LOADED
    await node.registry.close(0)
