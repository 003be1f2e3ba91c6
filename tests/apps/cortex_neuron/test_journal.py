"""Events are numbered, complete, quick, and can be resumed."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from cortex_core.wire import Health, ModelInfo
from cortex_neuron.journal import KEEP_EVENTS, Journal


class Desk:
    """A journal over rows that tests change."""

    def __init__(self) -> None:
        self.rows: list[ModelInfo] = []
        self.journal = Journal("boot", lambda: list(self.rows), Health)

    def put(self, *models: str, in_flight: int = 0) -> None:
        """Change what is on the node and say so."""
        self.rows = [ModelInfo(id=model, in_flight=in_flight) for model in models]
        self.journal.touch()


async def take(frames: AsyncIterator[bytes], count: int) -> list[tuple[str, str, Any]]:
    """Return the next events as (id, kind, data)."""
    taken: list[tuple[str, str, Any]] = []
    async with asyncio.timeout(5):
        while len(taken) < count:
            frame = (await anext(frames)).decode()
            if not frame.startswith(":"):
                lines = dict(line.split(": ", 1) for line in frame.strip().splitlines())
                taken.append((lines["id"], lines["event"], json.loads(lines["data"])))
    return taken


async def test_a_newcomer_gets_everything_first() -> None:
    """A snapshot, then changes."""
    desk = Desk()
    desk.put("a")
    frames = desk.journal.follow(None, 1)

    ((_, kind, data),) = await take(frames, 1)
    desk.put("a", "b")
    ((_, then, row),) = await take(frames, 1)

    assert (kind, [one["id"] for one in data["models"]]) == ("snapshot", ["a"])
    assert (then, row["id"]) == ("model", "b")


async def test_a_change_is_told_within_a_tenth_of_a_second() -> None:
    """The contract's 100 ms."""
    desk = Desk()
    frames = desk.journal.follow(None, 1)
    await take(frames, 1)
    loop = asyncio.get_running_loop()

    began = loop.time()
    desk.put("a")
    await take(frames, 1)

    assert loop.time() - began < 0.1


async def test_a_model_that_left_is_told() -> None:
    """Absence is news."""
    desk = Desk()
    desk.put("a")
    frames = desk.journal.follow(None, 1)
    await take(frames, 1)

    desk.put()
    ((_, kind, data),) = await take(frames, 1)

    assert (kind, data) == ("model_removed", {"id": "a"})


async def test_a_listener_resumes_where_it_stopped() -> None:
    """Nothing twice, nothing lost."""
    desk = Desk()
    frames = desk.journal.follow(None, 1)
    await take(frames, 1)
    desk.put("a")
    ((last, _, _),) = await take(frames, 1)
    await frames.aclose()  # type: ignore[attr-defined]
    desk.put("a", "b")

    ((_, kind, row),) = await take(desk.journal.follow(last, 1), 1)

    assert (kind, row["id"]) == ("model", "b")


async def test_another_life_of_the_daemon_starts_over() -> None:
    """An id of an earlier boot resumes nothing."""
    ((_, kind, _),) = await take(Desk().journal.follow("earlier-3", 1), 1)

    assert kind == "snapshot"


async def test_a_listener_that_fell_behind_gets_a_snapshot() -> None:
    """The journal is bounded; a gap is never silent."""
    desk = Desk()
    frames = desk.journal.follow(None, 1)
    ((first, _, _),) = await take(frames, 1)
    await frames.aclose()  # type: ignore[attr-defined]
    for number in range(KEEP_EVENTS + 10):
        desk.rows = [ModelInfo(id="m", in_flight=number)]
        desk.journal._compare()  # noqa: SLF001  # as if each change had its own moment

    ((_, kind, _),) = await take(desk.journal.follow(first, 1), 1)

    assert kind == "snapshot"


async def test_silence_is_filled_with_comments() -> None:
    """A listener can tell a quiet node from a dead one."""
    frames = Desk().journal.follow(None, 0.01)
    async with asyncio.timeout(5):
        seen = [await anext(frames) for _ in range(3)]

    assert b": keep-alive\n\n" in seen
