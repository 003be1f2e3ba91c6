"""Seats: by turns, bounded, and never lost."""

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


async def test_a_flood_does_not_delay_anybody_else() -> None:
    """Principals take turns: whoever asks once is next, however many another one has waiting."""
    admission, order = seats(queue=9), list[str]()

    async def visit(principal: str) -> None:
        async with admission.seat(principal):
            order.append(principal)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks, admission.seat("flood"):
        for principal in ("flood",) * 8 + ("quiet",):
            tasks.create_task(visit(principal))
        await settle()

    assert order == ["flood", "quiet"] + ["flood"] * 7


async def test_a_full_queue_makes_room_for_who_has_less_in_it() -> None:
    """The last of whoever has most waiting is refused, with a time to come back."""
    admission = seats(queue=2)
    async with admission.seat("flood"):
        flood = [asyncio.create_task(_hold(admission, "flood")) for _ in range(2)]
        await settle()
        quiet = asyncio.create_task(_hold(admission, "quiet"))
        await settle()

        assert [task.done() for task in (*flood, quiet)] == [False, True, False]
        with pytest.raises(QueueFull) as refused:
            await flood[1]
    await quiet
    await flood[0]

    assert refused.value.retry_after_secs is not None
    assert (admission.in_flight, admission.queue_depth, admission.rejected) == (0, 0, 1)


async def test_when_to_come_back_follows_from_how_long_answers_take() -> None:
    """Not from a guess, once there are any; what failed taught nothing."""
    admission = seats(queue=0)
    async with admission.seat():
        guessed = await _refused_until(admission)
    for _ in range(3):
        with pytest.raises(ValueError, match="failed"):
            async with admission.seat():
                raise ValueError("failed")
    async with admission.seat():
        known = await _refused_until(admission)

    assert (guessed, known) == (10.0, 1.0)


async def test_pages_are_waited_for_like_seats() -> None:
    """And come back whole, however whoever held them left."""
    admission = seats(at_once=9)
    admission.serve(9, pages=10)
    async with admission.seat("ada", 7):
        more = asyncio.create_task(_hold(admission, "ada", 7))
        gone = asyncio.create_task(_hold(admission, "ben", 4))
        await settle()
        depth = admission.queue_depth
        gone.cancel()
        await settle()
    await more

    assert depth == 2
    async with asyncio.timeout(1), admission.seat("ada", 10):
        assert admission.in_flight == 1


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


async def _hold(admission: Admission, principal: str = "", pages: int = 0) -> None:
    async with admission.seat(principal, pages):
        await asyncio.sleep(0)


async def _refused_until(admission: Admission) -> float | None:
    """Return how long a newcomer to a full queue is told to stay away."""
    with pytest.raises(QueueFull) as refused:
        await _hold(admission)
    return refused.value.retry_after_secs
