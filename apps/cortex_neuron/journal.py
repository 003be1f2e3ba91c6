"""Every change on this node as a numbered event, so that listeners miss nothing and can resume.

State is compared with what was last told, at most every `SETTLE_SECS`: a burst of changes becomes
one event a model, and a change is out long before the 100 ms that the contract allows.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from pydantic import BaseModel

from cortex_core.wire import Health, ModelInfo, ModelRemoved, Snapshot

SETTLE_SECS = 0.02
KEEP_EVENTS = 2048


@dataclass(frozen=True, slots=True)
class Entry:
    """One event: its number, its name, its JSON."""

    number: int
    kind: str
    data: bytes

    def frame(self, boot_id: str) -> bytes:
        """Return the server-sent event."""
        return b"id: %s-%d\nevent: %s\ndata: %s\n\n" % (
            boot_id.encode(),
            self.number,
            self.kind.encode(),
            self.data,
        )


class Journal:
    """Compares, numbers and hands out events of one daemon's life."""

    def __init__(
        self, boot_id: str, models: Callable[[], list[ModelInfo]], health: Callable[[], Health]
    ) -> None:
        self._boot_id = boot_id
        self._models = models
        self._health = health
        self._entries: deque[Entry] = deque(maxlen=KEEP_EVENTS)
        self._number = 0
        self._told: dict[str, ModelInfo] = {}
        self._told_health: Health | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._grown = asyncio.Event()

    def tell(self) -> None:
        """Say at once what has changed: a step that the next one follows quickly is told too."""
        self._compare()

    def touch(self) -> None:
        """Say that something may have changed."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(SETTLE_SECS, self._compare)

    async def follow(self, last_event_id: str | None, silence_secs: float) -> AsyncIterator[bytes]:
        """Yield frames from after `last_event_id` on, else from a snapshot; comments in silence."""
        position = self._resume_position(last_event_id)
        if position is None:
            self._compare()
            position = self._number
            yield Entry(position, "snapshot", _json(self._snapshot())).frame(self._boot_id)
        while True:
            missed = self._entries and self._entries[0].number > position + 1
            if missed:
                position = self._number
                yield Entry(position, "snapshot", _json(self._snapshot())).frame(self._boot_id)
            for entry in [one for one in self._entries if one.number > position]:
                position = entry.number
                yield entry.frame(self._boot_id)
            grown = self._grown
            if self._number > position:
                continue
            try:
                async with asyncio.timeout(silence_secs):
                    await grown.wait()
            except TimeoutError:
                yield b": keep-alive\n\n"

    def _resume_position(self, last_event_id: str | None) -> int | None:
        boot_id, _, number = (last_event_id or "").rpartition("-")
        if boot_id != self._boot_id or not number.isdigit() or int(number) > self._number:
            return None
        return int(number)

    def _snapshot(self) -> Snapshot:
        return Snapshot(boot_id=self._boot_id, health=self._health(), models=tuple(self._models()))

    def _compare(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rows = {row.id: row for row in self._models()}
        for model in [one for one in self._told if one not in rows]:
            self._append("model_removed", ModelRemoved(id=model))
        for model, row in rows.items():
            if self._told.get(model) != row:
                self._append("model", row)
        self._told = rows
        health = self._health().model_copy(update={"uptime_secs": 0.0, "models": ()})
        if health != self._told_health:
            self._told_health = health
            self._append("health", self._health())

    def _append(self, kind: str, value: BaseModel) -> None:
        self._number += 1
        self._entries.append(Entry(self._number, kind, _json(value)))
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()


def _json(value: BaseModel) -> bytes:
    return value.model_dump_json(exclude_none=True).encode()
