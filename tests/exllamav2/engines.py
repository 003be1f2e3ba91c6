"""Engines of the real exllamav2 in processes of their own, asked as a node asks them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cortex_core.settings import ExllamaSettings
from cortex_core.wire import Device
from cortex_dialects import FrameSplitter, json_payload, payload
from cortex_neuron.exllama.harness import ExllamaEngine, ExLlamaV2Harness
from cortex_uplink import Limits, Uplink

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
SETTINGS = ExllamaSettings(parallel=4, chunk=256, max_waiting=4, start_timeout_secs=120)
CARD = Device(
    index=0, kind="cuda", name="card", uuid="GPU-1", vram_total_mb=24576, compute_capability="8.6"
)
HELLO = [{"role": "user", "content": "Hello."}]


@dataclass(slots=True)
class Answer:
    """What an engine answered: a body, or the chunks of a stream."""

    status: int
    body: Any = None
    chunks: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    @property
    def error(self) -> Mapping[str, Any]:
        """Its error."""
        found: Mapping[str, Any] = self.body["error"]
        return found

    @property
    def text(self) -> str:
        """All that was said in the first choice."""
        rows = [choice for chunk in self.chunks for choice in chunk["choices"]]
        return "".join(one["delta"].get("content") or "" for one in rows if not one["index"])


@dataclass(frozen=True, slots=True)
class Served:
    """A running engine."""

    engine: ExllamaEngine
    uplink: Uplink
    progress: list[tuple[int, int | None]]

    @asynccontextmanager
    async def asked(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Any]:
        """Ask, and give the answer as it begins."""
        async with self.uplink.open(
            f"{self.engine.url}{path}",
            body=json.dumps({"model": "m", **body}).encode(),
            headers={"content-type": "application/json"},
        ) as answer:
            yield answer

    async def ask(self, path: str = CHAT, **body: Any) -> Answer:
        """Return the answer to a request."""
        async with self.asked(path, body) as answer:
            if answer.status != 200 or not body.get("stream"):
                return Answer(answer.status, json.loads(await answer.read(1 << 24)))
            found, frames = Answer(answer.status), FrameSplitter()
            async for chunk in answer.chunks():
                for frame in frames.feed(chunk):
                    if (value := json_payload(frame)) is not None:
                        found.chunks.append(value)
                    found.done |= payload(frame) == b"[DONE]"
            return found

    async def chat(self, **body: Any) -> Answer:
        """Return the answer to a short greedy chat."""
        return await self.ask(**{"messages": HELLO, "temperature": 0, "max_tokens": 64, **body})

    async def health(self) -> dict[str, Any]:
        """Return what the engine says of itself."""
        async with self.uplink.open(
            f"{self.engine.url}/health", body=b"", headers={}, method="GET"
        ) as answer:
            found: dict[str, Any] = json.loads(await answer.read(1 << 20))
            return found

    async def until(self, check: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the engine says of itself what is asked for."""
        async with asyncio.timeout(10):
            while not check(await self.health()):  # noqa: ASYNC110  # it is in another process
                await asyncio.sleep(0.01)

    async def idle(self) -> None:
        """Wait until it works on nothing, and every page is free."""
        assert self.engine.cache is not None
        pages = self.engine.cache.pages
        await self.until(lambda said: not said["jobs"] and said["free_pages"] == pages)


@asynccontextmanager
async def serving(folder: Path, *, device: Device = CARD, **options: Any) -> AsyncIterator[Served]:
    """Serve the model in a folder for as long as the block lasts."""
    harness = ExLlamaV2Harness(SETTINGS)
    spec = harness.configure(
        harness.probe(folder), model_id="m", path=folder, devices=[device], options=options
    )
    progress: list[tuple[int, int | None]] = []
    engine = await harness.start(spec, lambda done, of: progress.append((done, of)))
    uplink = Uplink(Limits(connect=5, first_byte=60, idle=30), keep_alive=False)
    try:
        yield Served(engine, uplink, progress)
    finally:
        await engine.stop(20)
        await uplink.aclose()
