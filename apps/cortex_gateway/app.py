"""Put the gateway together and run it."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeAlias

import httpx
import structlog
import uvloop

from cortex_core import __version__
from cortex_core.access import Keyring
from cortex_core.exposure import refuse_strangers
from cortex_core.loading import ConfigError
from cortex_core.settings import Address, Catalogue, CortexSettings, NeuronEntry
from cortex_gateway.capturing import Captures
from cortex_gateway.counting import TokenCounter
from cortex_gateway.dispatch import Dispatcher
from cortex_gateway.door import Door, keyring_of
from cortex_gateway.fleet import Fleet
from cortex_gateway.fleet_events import FleetEvents
from cortex_gateway.freshening import Freshener
from cortex_gateway.guarding import Guard
from cortex_gateway.in_flight import InFlight
from cortex_gateway.inference import Inference
from cortex_gateway.metrics import Metrics
from cortex_gateway.neuron_client import NeuronClient
from cortex_gateway.operating import Operator
from cortex_gateway.picture import fleet_picture
from cortex_gateway.refusing import Refusals
from cortex_gateway.routes import GatewayApi
from cortex_gateway.steering import Steering
from cortex_gateway.watching import Watcher
from cortex_uplink import Limits, Uplink
from cortex_uplink.event_memory import EventMemory
from cortex_uplink.logs import configure_logs
from cortex_uplink.serving import Gate, Listener, make_app
from cortex_uplink.serving import serve as serve_apps
from cortex_uplink.tls import client_tls, renew, server_tls

log = structlog.get_logger()

#: New containers before the youngest are looked through; Python's own 700 are one busy moment.
_GARBAGE_AFTER = 20_000

Reload: TypeAlias = Callable[[], tuple[CortexSettings, Catalogue]]


def serve(settings: CortexSettings, catalogue: Catalogue, reload: Reload) -> None:
    """Serve until SIGTERM or SIGINT has been obeyed. Raises OSError when an address is taken."""
    memory = EventMemory()
    configure_logs(memory)
    # What has been imported is never garbage, and looking at it costs every request.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_AFTER)
    uvloop.run(Gateway(settings, catalogue, reload, memory).run())


class Gateway:
    """One gateway process."""

    def __init__(
        self,
        settings: CortexSettings,
        catalogue: Catalogue,
        reload: Reload,
        memory: EventMemory,
    ) -> None:
        refuse_strangers(settings)
        self._keyring = keyring_of(settings)
        self._door = Door()
        self._tls = server_tls(settings.tls)
        self._nodes_tls = client_tls(settings.tls.ca_file)
        self._listening = settings.gateway
        self._settings = settings
        self._catalogue = catalogue
        self._reload = reload
        self._memory = memory
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Bind, watch, serve, drain."""
        settings = self._settings
        self._fleet = Fleet(self._catalogue)
        self._metrics = Metrics(self._fleet)
        self._dispatcher = Dispatcher(self._fleet, settings, self._metrics)
        timeouts = settings.timeouts
        limits = Limits(
            connect=timeouts.connect, first_byte=timeouts.first_byte, idle=timeouts.idle
        )
        self._inference = Inference(
            fleet=self._fleet,
            dispatcher=self._dispatcher,
            uplink=Uplink(limits, tls=self._nodes_tls),
            metrics=self._metrics,
            gate=Gate(),
            in_flight=InFlight(),
            captures=Captures(),
            settings=settings,
        )
        self._metrics.add(self._door)
        self._metrics.gauges.in_flight = lambda: self._inference.gate.in_flight
        self._metrics.gauges.waiting = lambda: self._dispatcher.waiting
        api = GatewayApi(
            inference=self._inference,
            counter=TokenCounter(self._fleet, self._dispatcher),
            operator=Operator(self._fleet, self._dispatcher),
            events=FleetEvents(self._fleet, self._picture),
            steering=Steering(
                in_flight=self._inference.in_flight,
                tallies=self._metrics.tallies,
                captures=self._inference.captures,
                memory=self._memory,
            ),
        )
        guard = Guard(lambda: self._inference.door)
        on_failure = guard.telling(Refusals(self._metrics.tallies))
        app = make_app(
            "cortex", request_max_mb=settings.gateway.request_max_mb, on_failure=on_failure
        )
        api.add_to(app)
        metrics_app = make_app("cortex-metrics", request_max_mb=1, on_failure=on_failure)
        self._guarded = (app, metrics_app)
        self._guard = guard
        api.add_metrics_to(metrics_app)
        self._open_to(self._keyring)
        await serve_apps(
            [
                Listener(app=one, address=Address.parse(address), tls=self._tls)
                for one, address in (
                    (app, settings.gateway.listen),
                    (metrics_app, settings.gateway.metrics_listen),
                )
            ],
            gate=self._inference.gate,
            drain_secs=timeouts.drain,
            background=self._background,
            reload=self._read_again,
            ready=self._ready,
        )

    def _picture(self) -> dict[str, object]:
        return fleet_picture(
            self._fleet,
            in_flight=self._inference.gate.in_flight,
            waiting=self._dispatcher.waiting,
        )

    def _ready(self, addresses: list[Address]) -> None:
        log.info(
            "cortex.ready",
            version=__version__,
            listen=str(addresses[0]),
            metrics_listen=str(addresses[1]),
            neurons=sorted(self._fleet.nodes),
        )

    @asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        async with httpx.AsyncClient(trust_env=False, verify=self._nodes_tls) as http:
            self._http = http
            await self._watch(self._settings)
            freshening = asyncio.create_task(Freshener(self._fleet, self._dispatcher).run())
            try:
                yield
            finally:
                freshening.cancel()
                with suppress(asyncio.CancelledError):
                    await freshening
                for name in list(self._tasks):
                    await self._unwatch(name)
                await self._inference.uplink.aclose()

    async def _watch(self, settings: CortexSettings) -> None:
        for entry in settings.neurons:
            known = self._fleet.nodes.get(entry.name)
            headers = await asyncio.to_thread(_token_header, entry)
            if headers is None:
                headers = {} if known is None else dict(known.headers)
            if known is not None and (known.entry, known.headers) == (entry, headers):
                continue
            state = self._fleet.add(entry, headers)
            timeout_secs = settings.observation.timeout_secs
            client = NeuronClient(entry, self._http, timeout_secs, headers)
            watcher = Watcher(self._fleet, state, client, settings.observation)
            self._dispatcher.clients[entry.name] = client
            self._dispatcher.watchers[entry.name] = watcher
            if (before := self._tasks.pop(entry.name, None)) is not None:
                before.cancel()
            self._tasks[entry.name] = asyncio.create_task(watcher.run())

    async def _unwatch(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _read_again(self) -> None:
        """Take over a changed configuration; one that cannot be used changes nothing."""
        try:
            settings, catalogue = await asyncio.to_thread(self._reload)
            refuse_strangers(settings)
            # Other addresses take a restart: until then it is these that are reached.
            refuse_strangers(settings.model_copy(update={"gateway": self._listening}))
            keyring = await asyncio.to_thread(keyring_of, settings)
            renew(self._tls, settings.tls)
        except ConfigError as error:
            log.warning("config.rejected", error=str(error))
            return
        names = {entry.name for entry in settings.neurons}
        for gone in set(self._fleet.nodes) - names:
            await self._unwatch(gone)
            self._fleet.remove(gone)
        await self._watch(settings)
        self._fleet.set_catalogue(catalogue)
        self._dispatcher.configure(settings)
        self._inference.settings = settings
        self._open_to(keyring)
        restart = (settings.gateway, settings.tls) != (self._settings.gateway, self._settings.tls)
        self._settings = settings
        log.info(
            "config.reloaded",
            neurons=sorted(names),
            models=len(catalogue.models),
            keys=None if keyring is None else len(keyring),
            needs_restart="[gateway] or [tls]" if restart else None,
        )

    def _open_to(self, keyring: Keyring | None) -> None:
        """Let in whoever has one of these keys; None: everybody."""
        self._door.know(keyring or {})
        self._inference.door = None if keyring is None else self._door
        for app in self._guarded:
            app.guard = None if keyring is None else self._guard


def _token_header(entry: NeuronEntry) -> dict[str, str] | None:
    """Return the header that carries the node's token, None where it cannot be read."""
    if entry.token_file is None:
        return {}
    try:
        token = entry.token_file.read_text(encoding="utf-8").strip().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        log.error("token.unreadable", node=entry.name, path=str(entry.token_file), error=str(error))  # noqa: TRY400  # the path says it all
        return None
    return {"authorization": f"Bearer {token}"}
