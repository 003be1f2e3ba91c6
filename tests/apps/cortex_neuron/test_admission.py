"""Seats: in order, bounded, and never lost."""

import asyncio

import pytest

from cortex_core.errors import QueueFull, ShuttingDown
from cortex_neuron.admission import Admission


def seats(*, at_once: int = 1, queue: int = 2, wait: float = 5.0) -> Admission:
    """An admission that tells nobody."""
    return Admission(
        max_in_flight=at_once, max_queue_depth=queue, max_wait_secs=wait, changed=lambda: None
    )


async def settle() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_waiters_are_seated_in_order() -> None:
    """First come, first served."""
    admission, order = seats(queue=5), list[int]()

    async def visit(number: int) -> None:
        async with admission.seat():
            order.append(number)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(visit(number))
            await asyncio.sleep(0)

    assert order == [0, 1, 2, 3]
    assert (admission.in_flight, admission.queue_depth) == (0, 0)


async def test_a_full_queue_refuses_at_once_with_a_hint() -> None:
    """Never an unbounded wait."""
    admission = seats(queue=0)
    async with admission.seat():
        with pytest.raises(QueueFull) as refused:
            async with admission.seat():
                pass

    assert refused.value.retry_after_secs is not None
    assert admission.rejected == 1


async def test_a_wait_has_an_end() -> None:
    """The deadline refuses and leaves no trace."""
    admission = seats(wait=0.01)
    async with admission.seat():
        with pytest.raises(QueueFull):
            async with admission.seat():
                pass
        waiting = admission.queue_depth

    assert waiting == 0
    async with admission.seat():
        assert admission.in_flight == 1


async def test_a_cancelled_waiter_leaks_no_seat() -> None:
    """Its place goes to the next one."""
    admission = seats()
    async with admission.seat():
        tasks = [asyncio.create_task(_hold(admission)) for _ in range(2)]
        await settle()
        tasks[0].cancel()
        await settle()
        depth = admission.queue_depth
    await tasks[1]

    assert depth == 1
    assert (admission.in_flight, admission.queue_depth) == (0, 0)


async def test_a_waiter_cancelled_in_the_moment_it_is_seated_passes_the_seat_on() -> None:
    """The race that pins an idle model at full for ever."""
    admission = seats()
    first = admission.seat()
    await first.__aenter__()
    tasks = [asyncio.create_task(_hold(admission)) for _ in range(2)]
    await settle()

    await first.__aexit__(None, None, None)
    tasks[0].cancel()
    async with asyncio.timeout(1):
        await tasks[1]

    assert admission.in_flight == 0


async def test_closing_wakes_everybody_and_refuses_newcomers() -> None:
    """A drain does not wait for a queue."""
    admission = seats()
    async with admission.seat():
        waiting = asyncio.create_task(_hold(admission))
        await settle()
        admission.close(ShuttingDown("bye"))
        with pytest.raises(ShuttingDown):
            await waiting
        with pytest.raises(ShuttingDown):
            async with admission.seat():
                pass

    async with asyncio.timeout(1):
        await admission.emptied()


async def _hold(admission: Admission) -> None:
    async with admission.seat():
        await asyncio.sleep(0)
