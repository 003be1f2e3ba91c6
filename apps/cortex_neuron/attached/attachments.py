"""Servers that are watched, and their models, which come and go with them.

1. A model that a server lists is loaded here, under its own id, until the server no longer lists
   it. What this node runs itself comes first: an id that is taken is not offered twice.
2. A server that cannot be reached leaves its models recovering, and who asks for them hears 503;
   when it is back, so are they. One that is merely slow to answer is given `MISSES` looks.
3. Its load is what it says it is: others may use it too.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from cortex_core.errors import ApiError, PreflightFailed, Unavailable
from cortex_core.settings import OpenAiServer, OpenAiSettings
from cortex_core.wire import AttachedServer, LoadRequest
from cortex_neuron.admission import Admission
from cortex_neuron.attached.engine import AttachedEngine
from cortex_neuron.attached.looking import Look, State, look
from cortex_neuron.attached.offers import Offer
from cortex_neuron.registry import Registry
from cortex_neuron.resident import Elsewhere, Resident
from cortex_router import Life, Status
from cortex_uplink import Uplink

log = structlog.get_logger()

HARNESS = "openai"
MISSES = 3
_HELD_BACK = "the server {name!r} is {state}; its models come back with it"


@dataclass(slots=True)
class Watched:
    """One server as it was last seen, and the models it has here."""

    settings: OpenAiServer
    state: State = State.UNSEEN
    detail: str = "it has not been looked at yet"
    misses: int = 0
    residents: dict[str, Resident] = field(default_factory=dict)
    passed_over: frozenset[str] = frozenset()


class Attachments:
    """The servers of this node."""

    def __init__(self, settings: OpenAiSettings, uplink: Uplink) -> None:
        self._every_secs = settings.look_secs
        self._uplink = uplink
        self._watched = [Watched(one) for one in settings.servers]

    def __bool__(self) -> bool:
        return bool(self._watched)

    def report(self) -> tuple[AttachedServer, ...]:
        """Return each server's state, for `/health`."""
        return tuple(
            AttachedServer(
                name=one.settings.name,
                state=one.state.value,
                detail=one.detail or None,
                models=tuple(sorted(one.residents)),
            )
            for one in self._watched
        )

    def absence(self, model: str) -> ApiError:
        """Return why a model that no server has here cannot be loaded: it never is, by us."""
        missing = [one.settings.name for one in self._watched if one.state is not State.UP]
        if missing:
            return Unavailable(
                f"{model!r} may be on the server {missing[0]!r}, which is not up; "
                "this node does not start it"
            )
        names = ", ".join(repr(one.settings.name) for one in self._watched) or "none"
        return PreflightFailed(
            "not_found",
            f"no server that this node is attached to has {model!r} (it is attached to: {names})",
        )

    async def run(self, registry: Registry) -> None:
        """Watch every server until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for one in self._watched:
                tasks.create_task(self._watch(one, registry))

    async def _watch(self, one: Watched, registry: Registry) -> None:
        while True:
            try:
                headers = await asyncio.to_thread(_headers, one.settings.token_file)
            except OSError as error:
                seen = Look(State.UNAUTHORIZED, f"token_file cannot be read: {error.strerror}")
            else:
                seen = await look(self._uplink, one.settings.url, headers)
                if seen.state is State.UP:
                    _offer(one, seen, headers, registry)
            _judge(one, seen)
            registry.touch()
            await asyncio.sleep(self._every_secs)


def _judge(one: Watched, seen: Look) -> None:
    """Enter what was seen, and take the models out of or back into service."""
    one.misses = 0 if seen.state is State.UP else one.misses + 1
    if seen.state is State.SILENT and one.misses < MISSES and one.state is State.UP:
        return
    if seen.state is not one.state:
        told = log.info if seen.state is State.UP else log.warning
        told(
            "attached.state",
            server=one.settings.name,
            before=one.state.value,
            now=seen.state.value,
            detail=seen.detail,
        )
    one.state, one.detail = seen.state, seen.detail
    for resident in one.residents.values():
        if seen.state is State.UP:
            if resident.status is Status.RECOVERING:
                resident.trouble = None
                resident.goes_through(Life.UP)
        elif resident.status is Status.LOADED:
            resident.trouble = _HELD_BACK.format(name=one.settings.name, state=seen.state.value)
            resident.elsewhere = None
            resident.goes_through(Life.CRASHED)


def _offer(one: Watched, seen: Look, headers: Mapping[str, str], registry: Registry) -> None:
    """Bring what this node offers in line with what the server does."""
    offers = {offer.id: offer for offer in seen.offers}
    for gone in [model for model in one.residents if model not in offers]:
        registry.dismiss(one.residents.pop(gone))
        log.info("attached.model_gone", server=one.settings.name, model=gone)
    passed_over = set[str]()
    for offer in offers.values():
        resident = one.residents.get(offer.id)
        if resident is None:
            resident = _resident(one.settings, offer, registry)
            if not registry.adopt(resident):
                passed_over.add(offer.id)
                continue
            one.residents[offer.id] = resident
            log.info("attached.model", server=one.settings.name, model=offer.id)
        _refresh(resident, one.settings, offer, headers)
        if seen.load is not None:
            resident.elsewhere = Elsewhere(seen.load.running, seen.load.waiting)
    if fresh := sorted(passed_over - one.passed_over):
        log.warning("attached.passed_over", server=one.settings.name, models=fresh)
    one.passed_over = frozenset(passed_over)


def _resident(server: OpenAiServer, offer: Offer, registry: Registry) -> Resident:
    resident = Resident(
        request=LoadRequest(model_id=offer.id, harness=HARNESS),
        harness=HARNESS,
        attached_to=server.name,
        admission=Admission(
            max_in_flight=server.max_in_flight,
            max_queue_depth=registry.admission.max_queue_depth,
            max_wait_secs=registry.admission.max_wait_secs,
            changed=registry.touch,
        ),
        capabilities=server.capabilities,
        loaded_at=time.time(),
    )
    resident.goes_through(Life.PLACED)
    resident.goes_through(Life.UP)
    resident.decided.set()
    resident.arrived.set()
    return resident


def _refresh(
    resident: Resident, server: OpenAiServer, offer: Offer, headers: Mapping[str, str]
) -> None:
    engine = AttachedEngine(
        server=server.name,
        url=server.url,
        headers=headers,
        slots=server.max_in_flight,
        context=offer.context,
        capabilities=server.capabilities,
    )
    if resident.engine != engine:
        resident.engine, resident.context = engine, offer.context


def _headers(token_file: Path | None) -> dict[str, Any]:
    """Return what every request carries; the file is read each time, so a token may change."""
    if token_file is None:
        return {}
    return {"authorization": f"Bearer {token_file.read_text().strip()}"}
