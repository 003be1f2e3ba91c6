"""`GET /fleet/events`: every change of the picture as a numbered, resumable event.

Events are `snapshot` (the whole of `/fleet`), `node` (one node's picture) and `node_removed`. A
node that changes many times within `SETTLE_SECS` is told of once.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from orjson import dumps

from cortex_gateway.fleet import Fleet, NodeState
from cortex_gateway.picture import node_picture

SETTLE_SECS = 0.02
SILENCE_SECS = 1.0
KEEP_EVENTS = 1024


class FleetEvents:
    """The numbered changes of this process's life."""

    def __init__(self, fleet: Fleet, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._fleet = fleet
        self._snapshot = snapshot
        self._life = secrets.token_hex(6)
        self._number = 0
        self._kept: deque[tuple[int, bytes]] = deque(maxlen=KEEP_EVENTS)
        self._dirty: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._grown = asyncio.Event()
        fleet.on_change(self._changed)

    async def follow(self, last_event_id: str | None) -> AsyncIterator[bytes]:
        """Yield frames after `last_event_id`, else a snapshot first; comments in silence."""
        position = self._resume(last_event_id)
        if position is None:
            position = self._number
            yield self._frame(position, "snapshot", self._snapshot())
        while True:
            grown = self._grown
            if self._kept and self._kept[0][0] > position + 1:
                position = self._number
                yield self._frame(position, "snapshot", self._snapshot())
            for number, frame in [one for one in self._kept if one[0] > position]:
                position = number
                yield frame
            if self._number > position:
                continue
            try:
                async with asyncio.timeout(SILENCE_SECS):
                    await grown.wait()
            except TimeoutError:
                yield b": keep-alive\n\n"

    def _resume(self, last_event_id: str | None) -> int | None:
        life, _, number = (last_event_id or "").rpartition("-")
        known = life == self._life and number.isdigit() and int(number) <= self._number
        return int(number) if known else None

    def _changed(self, state: NodeState | None) -> None:
        names = {state.entry.name} if state is not None else set(self._fleet.nodes)
        self._dirty |= names
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_SECS, self._publish)

    def _publish(self) -> None:
        self._timer = None
        for name in sorted(self._dirty):
            state = self._fleet.nodes.get(name)
            self._number += 1
            kind = "node_removed" if state is None else "node"
            value = {"name": name} if state is None else node_picture(state)
            self._kept.append((self._number, self._frame(self._number, kind, value)))
        self._dirty.clear()
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def _frame(self, number: int, kind: str, value: Any) -> bytes:
        head = f"id: {self._life}-{number}\nevent: {kind}\ndata: ".encode()
        return head + dumps(value) + b"\n\n"
