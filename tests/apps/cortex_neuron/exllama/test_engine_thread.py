"""The engine's thread, with a backend that does what a test says."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from cortex_core.errors import ApiError, InternalError, QueueFull, ShuttingDown, Unavailable
from cortex_neuron.exllama.engine_thread import EngineThread
from cortex_neuron.exllama.jobs import Broke, Ended, EndReason, Generated, Job, JobEvent
from cortex_neuron.exllama.sampling import Sampling
from tests.apps.cortex_neuron.exllama.fake_backend import FakeBackend


@asynccontextmanager
async def thread(backend: FakeBackend, max_waiting: int = 2) -> AsyncIterator[EngineThread]:
    """An engine around a backend, closed at the end."""
    engine = EngineThread(lambda: backend, max_waiting=max_waiting)
    engine.load()
    try:
        yield engine
    finally:
        backend.gate.set()
        await engine.close()


def job(*prompt: int, max_tokens: int = 3) -> Job:
    """Return a job."""
    return Job(prompt=prompt or (1, 2), max_tokens=max_tokens, sampling=Sampling())


async def run(engine: EngineThread, one: Job) -> list[JobEvent]:
    """Return everything that comes of a job."""
    async with engine.running(one) as events:
        return [event async for event in events]


def tokens(events: list[JobEvent]) -> list[int]:
    """Return the tokens among events."""
    return [token for event in events if isinstance(event, Generated) for token in event.tokens]


async def until(check: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110  # the thread tells nobody
            await asyncio.sleep(0.001)


async def test_jobs_are_answered_side_by_side() -> None:
    """Each gets its own tokens and its end, also those that had to wait."""
    async with thread(FakeBackend([7, 8, 9])) as engine:
        found = await asyncio.gather(*(run(engine, job(1, max_tokens=n)) for n in (2, 3, 4)))

        assert [tokens(events) for events in found] == [[7, 8], [7, 8, 9], [7, 8, 9, 7]]
        assert [events[-1] for events in found] == [
            Ended(EndReason.MAX_TOKENS, n) for n in (2, 3, 4)
        ]
        assert engine.jobs == {}


async def test_the_library_has_one_thread_of_its_own() -> None:
    """Loading, submitting and stepping happen on it, and it is not the loop's."""
    made: list[FakeBackend] = []

    def make() -> FakeBackend:
        made.append(FakeBackend([1]))
        return made[0]

    engine = EngineThread(make, max_waiting=2)
    engine.load()
    await run(engine, job())
    await engine.close()

    assert len(made[0].threads) == 1
    assert threading.get_ident() not in made[0].threads
    assert made[0].closed


async def test_the_loop_is_free_during_a_step() -> None:
    """A step that takes its time keeps nobody from anything else."""
    backend = FakeBackend([7])
    async with thread(backend) as engine:
        backend.gate.clear()
        answer = asyncio.create_task(run(engine, job()))
        await until(backend.stepping.is_set)
        ticks = [await asyncio.sleep(0, n) for n in range(100)]

        assert not answer.done()
        assert len(ticks) == 100
        assert engine.jobs != {}
        backend.gate.set()
        assert tokens(await answer) == [7, 7, 7]


async def test_whoever_leaves_takes_the_job_along() -> None:
    """After the step that was under way the backend knows of it no more."""
    backend = FakeBackend([7])
    async with thread(backend) as engine:
        backend.gate.clear()
        answer = asyncio.create_task(run(engine, job(max_tokens=50)))
        await until(backend.stepping.is_set)
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
        backend.gate.set()
        await until(lambda: bool(backend.cancelled))

        assert sum(backend.said.values()) <= 1
        assert backend.waiting == {}
        assert tokens(await run(engine, job(max_tokens=1))) == [7]


async def test_a_job_that_ended_is_not_cancelled() -> None:
    """Its ticket is nobody's any more."""
    backend = FakeBackend([7])
    async with thread(backend) as engine:
        await run(engine, job())

        assert backend.cancelled == []


async def test_the_queue_has_an_end() -> None:
    """Two run, two wait; the fifth is refused and no trace of it remains."""
    backend = FakeBackend([7])
    async with thread(backend) as engine:
        backend.gate.clear()
        answers = [asyncio.create_task(run(engine, job())) for _ in range(4)]
        await until(lambda: len(engine.jobs) == 4)
        with pytest.raises(QueueFull):
            await run(engine, job())

        assert len(engine.jobs) == 4
        backend.gate.set()
        assert len(await asyncio.gather(*answers)) == 4


async def test_room_is_asked_for_many_at_once() -> None:
    """A request with several answers gets all of its places or none."""
    async with thread(FakeBackend([7]), max_waiting=1) as engine:
        engine.check_room(3)
        with pytest.raises(QueueFull):
            engine.check_room(4)


async def test_a_job_that_the_library_refuses_breaks_alone() -> None:
    """It is our mistake, and nobody else's."""
    async with thread(FakeBackend([7])) as engine:
        other, broken = await asyncio.gather(run(engine, job(1)), run(engine, job(13)))

        assert tokens(other) == [7, 7, 7]
        assert isinstance(broken[-1], Broke)
        assert isinstance(broken[-1].error, InternalError)


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (RuntimeError("shapes do not match"), InternalError, "internal_error"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), Unavailable, "out_of_memory"),
    ],
)
async def test_a_step_that_fails_loses_its_jobs_and_no_more(
    error: Exception, kind: type[ApiError], code: str
) -> None:
    """All who wait are told, the backend begins anew, and the next is served."""
    backend = FakeBackend([7], failures=[error])
    async with thread(backend) as engine:
        lost = await asyncio.gather(run(engine, job()), run(engine, job()))

        for events in lost:
            assert isinstance(events[-1], Broke)
            assert isinstance(events[-1].error, kind)
            assert events[-1].error.code == code
        assert backend.resets == 1
        assert tokens(await run(engine, job())) == [7, 7, 7]


async def test_a_device_fault_is_the_end() -> None:
    """Everybody is told at once, nothing is tried again, and newcomers are refused."""
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    backend = FakeBackend([7], failures=[error])
    async with thread(backend) as engine:
        (*_, last) = await run(engine, job())
        assert isinstance(last, Broke)
        assert last.error.code == "device_fault"
        async with asyncio.timeout(5):
            await engine.fault.wait()
        with pytest.raises(Unavailable):
            engine.check_room(1)

        assert backend.resets == 0


async def test_closing_tells_whoever_waits() -> None:
    """An answer that is under way ends with a reason."""
    backend = FakeBackend([7])
    async with thread(backend) as engine:
        backend.gate.clear()
        answer = asyncio.create_task(run(engine, job()))
        await until(backend.stepping.is_set)
        closing = asyncio.create_task(engine.close())
        last = (await answer)[-1]
        backend.gate.set()
        await closing

        assert isinstance(last, Broke)
        assert isinstance(last.error, ShuttingDown)
        assert backend.closed


def test_a_load_that_fails_says_why() -> None:
    """What loading raised is raised to whoever waits for it."""

    def make() -> FakeBackend:
        raise OSError("no such folder")

    with pytest.raises(OSError, match="no such folder"):
        EngineThread(make, max_waiting=0).load()


async def test_silence_is_measured_while_there_is_work() -> None:
    """A step that does not end shows; an engine without work is not silent."""
    backend = FakeBackend([7])
    async with thread(backend) as engine:
        assert engine.silent_secs == 0
        backend.gate.clear()
        answer = asyncio.create_task(run(engine, job()))
        await until(lambda: engine.silent_secs > 0.02)

        backend.gate.set()
        await answer
        assert engine.silent_secs == 0
