"""Watch one node: its event stream where it has one, polls where it has none or says nothing.

A node is unhealthy after so many missed polls in a row, healthy again after the first good one.
While misses are counted polls come every second, so a dead node is known within a few seconds and
a busy one is not mistaken for it. Discovery is asked again whenever the boot id is another, or the
node was away.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from orjson import JSONDecodeError, loads
from pydantic import ValidationError

from cortex_core.settings import ObservationSettings
from cortex_core.wire import Health, ModelInfo, ModelRemoved, Snapshot
from cortex_dialects import FrameSplitter, FrameTooLarge, payload
from cortex_gateway.fleet import Fleet, NodeState, now
from cortex_gateway.neuron_client import NeuronClient, NodeError

log = structlog.get_logger()

SILENCE_SECS = 5.0
RETRY_SECS = 1.0
#: A node without an event stream is asked about one again after so long (it may be upgraded).
NO_EVENTS_RETRY_SECS = 60.0


class Watcher:
    """Keeps the fleet's picture of one node current until cancelled."""

    def __init__(
        self, fleet: Fleet, state: NodeState, client: NeuronClient, settings: ObservationSettings
    ) -> None:
        self._fleet = fleet
        self._state = state
        self._client = client
        self._settings = settings
        self._nudge = asyncio.Event()
        self._last_event_id: str | None = None

    def nudge(self) -> None:
        """Poll now."""
        self._nudge.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._forever(self._poll_in_turn))
            tasks.create_task(self._forever(self._follow_events))

    async def _forever(self, once: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await once()
            except Exception:  # a watcher must outlive any nonsense a node says
                log.exception("watch.crashed", node=self._state.entry.name)
                await asyncio.sleep(RETRY_SECS)

    async def _poll_in_turn(self) -> None:
        await self.poll()
        missing = not self._state.healthy or self._state.misses > 0
        pause = min(RETRY_SECS, self._settings.poll_secs) if missing else self._settings.poll_secs
        try:
            async with asyncio.timeout(pause):
                await self._nudge.wait()
        except TimeoutError:
            pass
        self._nudge.clear()

    async def poll(self) -> None:
        """Ask the node for everything once."""
        state = self._state
        try:
            if state.discovery is None or not state.healthy:
                state.discovery = await self._client.discovery()
            rows, health = await asyncio.gather(self._client.models(), self._health())
        except NodeError as error:
            self._missed(str(error))
            return
        state.models = {row.id: row for row in rows}
        state.health = health
        self._seen()

    async def _health(self) -> Health:
        """Return the node's health; a node that cannot say is not unhealthy for it."""
        try:
            return await self._client.health()
        except NodeError as error:
            if error.status is None:
                raise
            return Health()

    async def _follow_events(self) -> None:
        try:
            async with self._client.events(self._last_event_id, SILENCE_SECS) as chunks:
                frames = FrameSplitter()
                async for chunk in chunks:
                    self._state.last_seen = now()
                    for frame in frames.feed(chunk):
                        self._event(frame)
        except FrameTooLarge as error:
            log.warning("watch.nonsense", node=self._state.entry.name, error=str(error))
        except NodeError as error:
            if error.status is not None:
                await asyncio.sleep(NO_EVENTS_RETRY_SECS)
                return
        self.nudge()
        await asyncio.sleep(RETRY_SECS / 4)

    def _event(self, frame: bytes) -> None:
        kind = _field(frame, b"event:")
        if kind is None:
            return
        try:
            self._take(kind, loads(payload(frame)))
        except (ValidationError, JSONDecodeError) as error:
            log.warning("watch.nonsense", node=self._state.entry.name, error=str(error))
            return
        self._last_event_id = _field(frame, b"id:") or self._last_event_id
        if self._state.discovery is None:
            self.nudge()
        else:
            self._seen()

    def _take(self, kind: str, value: object) -> None:
        state = self._state
        match kind:
            case "snapshot":
                snapshot = Snapshot.model_validate(value)
                state.models = {row.id: row for row in snapshot.models}
                state.health = snapshot.health
                if state.discovery is not None and state.discovery.boot_id != snapshot.boot_id:
                    state.discovery = None
            case "model":
                row = ModelInfo.model_validate(value)
                state.models[row.id] = row
            case "model_removed":
                state.models.pop(ModelRemoved.model_validate(value).id, None)
            case "health":
                state.health = Health.model_validate(value)

    def _seen(self) -> None:
        state = self._state
        if not state.healthy:
            log.info("node.healthy", node=state.entry.name)
        state.healthy, state.misses, state.error = True, 0, None
        state.last_seen = now()
        self._fleet.observed(state)

    def _missed(self, error: str) -> None:
        state = self._state
        state.misses += 1
        state.error = error
        if state.healthy and state.misses >= self._settings.misses:
            state.healthy = False
            log.warning("node.unhealthy", node=state.entry.name, misses=state.misses, error=error)
        self._fleet.observed(state)


def _field(frame: bytes, name: bytes) -> str | None:
    for line in frame.splitlines():
        if line.startswith(name):
            return line[len(name) :].strip().decode("utf-8", "replace")
    return None
