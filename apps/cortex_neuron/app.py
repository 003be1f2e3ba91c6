"""Put the node together and run it."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import structlog
import uvloop

from cortex_core import __version__
from cortex_core.exposure import refuse_strangers
from cortex_core.loading import ConfigError
from cortex_core.plugins import load_object
from cortex_core.settings import Address, NeuronSettings, SwappingSettings
from cortex_core.wire import Discovery, Health, ModelInfo, ModelLoad
from cortex_neuron.activation import Activator
from cortex_neuron.attached import HARNESS as ATTACHED
from cortex_neuron.attached import Attachments
from cortex_neuron.discovery import probe_machine
from cortex_neuron.engine_health import HealthCheck
from cortex_neuron.exllama.counters import Counters
from cortex_neuron.harnesses import Harnesses, make_harnesses
from cortex_neuron.inference import Inference
from cortex_neuron.journal import Journal
from cortex_neuron.ledger import Ledger
from cortex_neuron.llamacpp.tokenizer import Tokenizers
from cortex_neuron.meters import SILENT, Meters
from cortex_neuron.metrics import Metrics
from cortex_neuron.obeying import Obedience, read_tokens
from cortex_neuron.registry import Registry
from cortex_neuron.room import Room
from cortex_neuron.routes import NodeApi
from cortex_neuron.token_counts import TokenCounts
from cortex_neuron.workshop import NodeWorkshop
from cortex_neuron.xids import Severity, describe, severity_of
from cortex_router import STRATEGIES, Device, Rules, Strategy, Swapping
from cortex_uplink import Limits, Uplink
from cortex_uplink.logs import configure_logs
from cortex_uplink.serving import Gate, Listener, make_app
from cortex_uplink.serving import serve as serve_apps
from cortex_uplink.tls import renew, server_tls

log = structlog.get_logger()

METERS_EVERY_SECS = 2.0
ENGINE_CONNECT_SECS = 5.0


def serve(settings: NeuronSettings, reload: Callable[[], NeuronSettings]) -> None:
    """Serve until SIGTERM or SIGINT has been obeyed. Raises OSError when the port is taken."""
    configure_logs()
    uvloop.run(Neuron(settings, reload).run())


class Neuron:
    """One node process; `harnesses` stand in for those that the settings name."""

    def __init__(
        self,
        settings: NeuronSettings,
        reload: Callable[[], NeuronSettings],
        harnesses: Harnesses | None = None,
    ) -> None:
        refuse_strangers(settings)
        self._obedience = Obedience(read_tokens(settings.token_file))
        self._tls = server_tls(settings.tls)
        self._settings = settings
        self._reload = reload
        self._harnesses = make_harnesses(settings) if harnesses is None else harnesses
        self._metrics = Metrics()
        self._started = time.monotonic()

    async def run(self) -> None:
        """Look at the machine, bind, warm up, serve, drain."""
        settings = self._settings
        machine = await asyncio.to_thread(probe_machine, settings.devices)
        harnesses = self._harnesses
        discovery = Discovery(
            hostname=machine.hostname,
            os=machine.os,
            kernel=machine.kernel,
            boot_id=secrets.token_hex(8),
            version=__version__,
            cuda_version=machine.cuda_version,
            driver_version=machine.driver_version,
            cuda_unavailable_reason=machine.cuda_unavailable_reason,
            devices=machine.devices,
            harnesses=(*harnesses.usable, *([ATTACHED] if settings.harness.openai.servers else [])),
            unusable_harnesses=dict(harnesses.unusable),
        )
        ledger = Ledger({d.index: d.vram_total_mb for d in machine.devices})
        self._ledger = ledger
        self._machine = machine
        self._meters = Meters(machine)
        timeouts = settings.timeouts
        limits = Limits(
            connect=ENGINE_CONNECT_SECS, first_byte=timeouts.first_byte, idle=timeouts.idle
        )
        self._uplink = Uplink(limits, keep_alive=False)
        self._attachments = Attachments(settings.harness.openai, self._uplink)
        self._workshop = NodeWorkshop(
            meters=self._meters,
            devices=machine.devices,
            ledger=ledger,
            ask_health=HealthCheck(self._uplink),
            harnesses=harnesses,
            attachments=self._attachments,
            settings=settings,
        )
        devices = tuple(Device(index=d.index, total_mb=d.vram_total_mb) for d in machine.devices)
        self._registry = Registry(
            workshop=self._workshop,
            ledger=ledger,
            room=Room(ledger, devices),
            admission=settings.admission,
            timeouts=settings.timeouts,
            swapping=_swapping(settings.swapping),
        )
        self._activator = Activator(self._registry, settings.default_models)
        self._gate = Gate()
        self._token_counts = TokenCounts(Tokenizers(), Counters(self._uplink))
        assert discovery.boot_id is not None  # noqa: S101  # set above
        self._journal = Journal(discovery.boot_id, self._rows, self._health)
        self._registry.on_change(self._journal.touch, self._journal.tell)
        api = NodeApi(
            discovery=discovery,
            health=self._health,
            rows=self._rows,
            registry=self._registry,
            workshop=self._workshop,
            token_counts=self._token_counts,
            journal=self._journal,
            metrics=self._metrics,
            inference=Inference(
                registry=self._registry,
                uplink=self._uplink,
                metrics=self._metrics,
                gate=self._gate,
            ),
        )
        app = make_app(
            "neuron", request_max_mb=settings.request_max_mb, on_failure=self._obedience.tell
        )
        api.add_to(app)
        if settings.token_file is not None:
            app.guard = self._obedience
        address = Address(settings.host, settings.port)
        await serve_apps(
            [Listener(app=app, address=address, tls=self._tls)],
            gate=self._gate,
            drain_secs=timeouts.drain,
            background=self._background,
            reload=self._read_again,
            ready=lambda addresses: log.info(
                "neuron.ready",
                version=__version__,
                listen=str(addresses[0]),
                boot_id=discovery.boot_id,
                devices=[device.name for device in machine.devices],
            ),
        )

    @asynccontextmanager
    async def _background(self) -> AsyncIterator[None]:
        await self._workshop.measure({})
        loop = asyncio.get_running_loop()
        watch = self._machine.nvml and self._machine.nvml.watch(
            lambda devices, xid: loop.call_soon_threadsafe(self._hear_xid, devices, xid)
        )
        tasks = [
            asyncio.create_task(self._read_meters()),
            asyncio.create_task(self._scan_and_activate()),
            asyncio.create_task(self._attachments.run(self._registry)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            if watch:
                watch.stop()
            await self._registry.close(drain_secs=0)
            await self._token_counts.aclose()
            await self._uplink.aclose()

    async def _read_meters(self) -> None:
        while True:
            await asyncio.sleep(METERS_EVERY_SECS)
            held = await self._workshop.measure(self._registry.engines())
            for model, by_device in held.items():
                if (resident := self._registry.residents.get(model)) is not None:
                    resident.holds(sum(by_device.values()))
            for device in self._workshop.telemetry:
                if device.fault is not None and device.fault != SILENT:
                    self._registry.device_failed(device.index, device.fault)
            self._registry.unload_idle(time.time())
            self._journal.touch()

    def _hear_xid(self, devices: tuple[int, ...], xid: int) -> None:
        """Log what the driver says of a GPU, and take it out of use where nothing else is left."""
        severity = severity_of(xid)
        log.error(
            "device.xid",
            devices=list(devices),
            xid=xid,
            severity=severity.value,
            meaning=describe(xid),
        )
        for device in devices:
            self._metrics.xids.labels(str(device), str(xid)).inc()
            if severity is Severity.DEVICE:
                self._meters.fail(device, describe(xid))
                self._registry.device_failed(device, describe(xid))
        self._journal.touch()

    async def _scan_and_activate(self) -> None:
        await self._workshop.scan()
        self._journal.touch()
        await self._activator.run()

    async def _read_again(self) -> None:
        """Look at model_dirs, tokens and certificate again; the rest needs a restart, it says."""
        try:
            settings = await asyncio.to_thread(self._reload)
            refuse_strangers(settings)
            # Another address takes a restart: until then it is this one that is reached.
            refuse_strangers(settings.model_copy(update={"host": self._settings.host}))
            tokens = await asyncio.to_thread(read_tokens, settings.token_file)
            renew(self._tls, settings.tls)
        except ConfigError as error:
            log.warning("config.rejected", error=str(error))
            return
        self._obedience.tokens = tokens
        changed = settings != self._settings
        await self._workshop.scan()
        self._journal.touch()
        log.info("config.reloaded", needs_restart=changed, local_models=len(self._workshop.local))

    def _rows(self) -> list[ModelInfo]:
        rows = dict(self._workshop.local)
        rows |= {row.id: row for row in self._registry.rows()}
        return [rows[model] for model in sorted(rows)]

    def _health(self) -> Health:
        return Health(
            uptime_secs=round(time.monotonic() - self._started, 1),
            draining=self._gate.draining,
            load_cycles=self._registry.load_cycles,
            devices=tuple(
                device.model_copy(
                    update={"vram_reserved_mb": self._ledger.reserved_mb(device.index)}
                )
                for device in self._workshop.telemetry
            ),
            activation=self._activator.report(),
            models=tuple(
                ModelLoad(
                    id=r.id,
                    in_flight=r.in_flight,
                    queue_depth=r.queue_depth,
                    max_in_flight=r.admission.max_in_flight,
                    max_queue_depth=r.admission.max_queue_depth,
                    rejected=r.admission.rejected,
                    tok_s_prefill=r.tok_s_prefill,
                    tok_s_decode=r.tok_s_decode,
                )
                for r in self._registry.residents.values()
            ),
            attached=self._attachments.report(),
        )


def _swapping(settings: SwappingSettings) -> Swapping:
    """Return the operator's choices as the router knows them."""
    rules = Rules(
        strategy=_strategy(settings.strategy), min_residency_secs=settings.min_residency_secs
    )
    return Swapping(rules=rules, amortise=settings.amortise, linger_secs=settings.linger_secs)


def _strategy(name: str) -> Strategy:
    """Return an eviction strategy, built in or a user's own. Raises ConfigError."""
    if (known := STRATEGIES.get(name)) is not None:
        return known
    found = load_object(name, where="swapping.strategy", methods=("tier", "price"))
    return cast("Strategy", found)
