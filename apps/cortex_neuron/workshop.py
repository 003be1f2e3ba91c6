"""What the registry asks of the world: fetch files, read them, start engines, read meters.

Everything that blocks (disk, network, NVML) runs in a thread; what comes back are values.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from cortex_core.errors import ApiError, PreflightFailed
from cortex_core.settings import NeuronSettings
from cortex_core.wire import Device, DeviceHealth, LoadRequest, ModelInfo, Progress
from cortex_neuron.attached import HARNESS as ATTACHED
from cortex_neuron.attached import Attachments
from cortex_neuron.discovery import Held
from cortex_neuron.engine_process import starting
from cortex_neuron.hanging import Answer
from cortex_neuron.harness import Engine, Harness, ModelFacts, Report
from cortex_neuron.harnesses import Harnesses, harness_of
from cortex_neuron.ledger import Ledger
from cortex_neuron.meters import Meters
from cortex_neuron.sources import (
    FetchCancelled,
    Fetching,
    FileSource,
    Source,
    find,
    parse_source,
    resolve,
    scan_model_dirs,
)
from cortex_neuron.supervision import AskHealth

log = structlog.get_logger()

#: Progress of a download is told at most this often.
REPORT_EVERY_SECS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedModel:
    """A model whose files are here and read."""

    harness: Harness
    facts: ModelFacts
    request: LoadRequest
    path: Path
    devices: Mapping[int, Device]
    required_mb: int
    capabilities: tuple[str, ...]

    @property
    def harness_name(self) -> str:
        """The harness that its files need."""
        return self.harness.name

    async def start(self, devices: tuple[int, ...], report: Report) -> Engine:
        """Start the engine on these devices."""
        spec = self.harness.configure(
            self.facts,
            model_id=self.request.model_id,
            path=self.path,
            devices=[self.devices[index] for index in devices],
            capabilities=self.request.capabilities,
            options=self.request.options,
        )
        return await self.harness.start(spec, report)


class NodeWorkshop:
    """The world of one node."""

    def __init__(
        self,
        *,
        meters: Meters,
        devices: Sequence[Device],
        ledger: Ledger,
        ask_health: AskHealth,
        harnesses: Harnesses,
        attachments: Attachments,
        settings: NeuronSettings,
    ) -> None:
        self._meters = meters
        self._ledger = ledger
        self._ask_health = ask_health
        self._harnesses = harnesses
        self._attachments = attachments
        self._settings = settings
        self._devices = {device.index: device for device in devices}
        self._local: dict[str, ModelInfo] = {}
        self._paths: dict[str, Path] = {}

    @property
    def telemetry(self) -> tuple[DeviceHealth, ...]:
        """What the meters said last."""
        return self._meters.last.devices

    @property
    def local(self) -> Mapping[str, ModelInfo]:
        """Rows of the models whose files lie in `model_dirs`, by id."""
        return self._local

    async def find(self, model: str, source: str | None, quant: str | None) -> Path | None:
        """Return where the files of a model are on this node, None when they are not.

        Without a source that is what the node knows under the id. Nothing is fetched. Raises
        PreflightFailed for a source or a quant that cannot be meant.
        """
        if source is None:
            return self._paths.get(model)
        parsed = parse_source(source, Path.cwd())
        return await asyncio.to_thread(find, parsed, quant, self._fetching())

    def check_harness(self, request: LoadRequest) -> None:
        """Raise InvalidRequest when the request names a harness that cannot be used here."""
        if request.harness == ATTACHED and self._attachments:
            raise self._attachments.absence(request.model_id)
        if request.harness is not None:
            self._harnesses.named(request.harness)

    async def prepare(
        self, request: LoadRequest, report: Callable[[Progress], None]
    ) -> PreparedModel:
        """Fetch and read the model. Raises PreflightFailed."""
        path = await self._fetch(self._source(request), request.quant, report)
        self._paths[request.model_id] = path
        return await asyncio.to_thread(self._read, request, path)

    async def measure(self, engines: Mapping[str, Engine]) -> Mapping[str, Held]:
        """Read the meters; tell the ledger, and return what each engine holds on each device."""
        running = {model: e.pid for model, e in engines.items() if e.pid is not None}
        reading = await self._meters.read({**starting(), **running})
        self._ledger.observe({d.index: d.vram_free_mb for d in reading.devices}, reading.held)
        return reading.held

    def trouble(self, devices: tuple[int, ...]) -> str | None:
        """Return what is wrong with one of `devices`, None when all are well."""
        faults = (one.fault for one in self.telemetry if one.index in devices)
        return next((fault for fault in faults if fault is not None), None)

    async def ask_health(self, engine: Engine) -> Answer:
        """Return what the engine says of its health."""
        return await self._ask_health(engine)

    async def scan(self) -> None:
        """Look for models in `model_dirs` and estimate what each would need."""
        self._local, paths = await asyncio.to_thread(self._scan)
        self._paths |= paths

    def _source(self, request: LoadRequest) -> Source:
        if request.source is not None:
            return parse_source(request.source, Path.cwd())
        known = self._paths.get(request.model_id)
        if known is None:
            raise PreflightFailed(
                "not_found",
                f"{request.model_id!r} has no source and is not in this node's model_dirs; "
                "give a source, or put its file there",
            )
        return FileSource(known)

    def _fetching(self) -> Fetching:
        return Fetching(
            cache_dir=self._settings.resolved_cache_dir(os.environ), environment=dict(os.environ)
        )

    async def _fetch(
        self, source: Source, quant: str | None, report: Callable[[Progress], None]
    ) -> Path:
        loop = asyncio.get_running_loop()
        started = time.time()
        told = 0.0

        def tell(done: int, total: int | None) -> None:
            nonlocal told
            if (now := time.monotonic()) - told < REPORT_EVERY_SECS and done != total:
                return
            told = now
            progress = Progress(
                phase="fetching", done_bytes=done, total_bytes=total, started_at=started
            )
            loop.call_soon_threadsafe(report, progress)

        cancelled = threading.Event()
        fetching = replace(self._fetching(), report=tell, cancelled=cancelled)
        try:
            return await asyncio.to_thread(resolve, source, quant, fetching)
        except FetchCancelled as error:
            raise asyncio.CancelledError from error
        finally:
            cancelled.set()

    def _read(self, request: LoadRequest, path: Path) -> PreparedModel:
        harness = self._harnesses.named(request.harness or harness_of(path))
        facts = harness.probe(path)
        count = request.tensor_parallel or len(request.devices or ()) or 1
        spec = harness.configure(
            facts,
            model_id=request.model_id,
            path=path,
            devices=list(self._devices.values())[:count],
            capabilities=request.capabilities,
            options=request.options,
        )
        return PreparedModel(
            harness=harness,
            facts=facts,
            request=request,
            path=path,
            devices=self._devices,
            required_mb=harness.estimate(facts, spec),
            capabilities=spec.capabilities,
        )

    def _scan(self) -> tuple[dict[str, ModelInfo], dict[str, Path]]:
        found = scan_model_dirs(self._settings.model_dirs)
        for problem in found.problems:
            log.warning("model_dirs.problem", problem=problem)
        rows: dict[str, ModelInfo] = {}
        paths: dict[str, Path] = {}
        for model in found.models:
            request = LoadRequest(model_id=model.id)
            try:
                prepared = self._read(request, model.path)
            except ApiError as error:
                log.warning("model_dirs.unusable", model=model.id, error=error.message)
                continue
            paths[model.id] = model.path
            rows[model.id] = ModelInfo(
                id=model.id,
                harness=prepared.harness_name,
                status="unloaded",
                vram_required_mb=prepared.required_mb,
                capabilities=prepared.capabilities,
            )
        return rows, paths
