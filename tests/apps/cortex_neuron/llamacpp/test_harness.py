"""Real engines on the real small model."""

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import uvloop

from cortex_core.errors import InvalidRequest, PreflightFailed
from cortex_core.settings import LlamaCppSettings
from cortex_core.wire import Device
from cortex_neuron.harness import EngineSpec, Harness
from cortex_neuron.llamacpp.harness import LlamaCppEngine, LlamaCppHarness
from cortex_neuron.processes import resident_bytes
from tests.demo_model import demo_model_path

CPU = (Device(index=0, kind="cpu"),)
GPUS = (Device(index=0, uuid="GPU-a"), Device(index=1, uuid="GPU-b"))
HARNESS = LlamaCppHarness(LlamaCppSettings(context=512, parallel=2))


def spec(
    path: Path,
    *,
    devices: Sequence[Device] = CPU,
    capabilities: Sequence[str] = (),
    **options: object,
) -> EngineSpec:
    """Return how the file at `path` shall run."""
    facts = HARNESS.probe(path)
    return HARNESS.configure(
        facts,
        model_id="demo",
        path=path,
        devices=devices,
        capabilities=capabilities,
        options=options,
    )


async def start(wanted: EngineSpec) -> LlamaCppEngine:
    """Start an engine and tell nobody."""
    return await HARNESS.start(wanted, lambda _done, _total: None)


def client(engine: LlamaCppEngine) -> httpx.AsyncClient:
    """Return a client that the engine trusts."""
    return httpx.AsyncClient(base_url=engine.url, headers=engine.headers, timeout=120)


async def ask(http: httpx.AsyncClient, words: int, name: str = "w") -> dict[str, Any]:
    """Return the answer to a prompt of so many words."""
    body = {"messages": [{"role": "user", "content": f"{name} " * words}], "max_tokens": 8}
    answer = await http.post("/v1/chat/completions", json=body)
    assert answer.status_code == httpx.codes.OK, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_it_is_a_harness() -> None:
    """The protocol holds, for the type checker and in name."""
    harness: Harness = HARNESS

    assert harness.name == "llamacpp"


async def test_an_engine_serves_and_leaves_no_memory_behind() -> None:
    """Ready with its slots and context; only who has the secret is served; gone when stopped."""
    engine = await start(spec(demo_model_path()))
    async with client(engine) as http:
        answer = await ask(http, 3)
        stranger = await http.post("/v1/chat/completions", json={}, headers={"authorization": "no"})
    assert (engine.slots, engine.context) == (2, 512)
    assert engine.capabilities == ("chat", "completion")
    assert answer["model"] == "demo"
    assert stranger.status_code == httpx.codes.UNAUTHORIZED
    assert resident_bytes([engine.pid]) > 0
    await engine.stop(5)

    assert not psutil.pid_exists(engine.pid)


async def test_it_embeds_only_when_asked() -> None:
    """A chat model embeds and still chats when the capability is wanted."""
    engine = await start(spec(demo_model_path(), capabilities=("embedding",)))
    async with client(engine) as http:
        embedded = await http.post("/v1/embeddings", json={"input": "hello"})
        answer = await ask(http, 3)
    await engine.stop(5)

    assert engine.capabilities == ("chat", "completion", "embedding")
    assert len(embedded.json()["data"][0]["embedding"]) == 576
    assert answer["choices"]


@pytest.mark.parametrize(
    "options",
    [
        {"context": 512, "parallel": 1},
        {"context": 2048, "parallel": 2},
        {"context": 4096, "parallel": 4},
    ],
)
async def test_the_estimate_holds_when_the_engine_is_busy(options: dict[str, Any]) -> None:
    """Not below what is really used, and not a quarter above it."""
    wanted = spec(demo_model_path(), **options)
    estimate = HARNESS.estimate(HARNESS.probe(wanted.path), wanted)
    engine = await start(wanted)
    async with client(engine) as http:
        await asyncio.gather(*(ask(http, 20, f"w{n}") for n in range(options["parallel"])))
    used = resident_bytes([engine.pid]) / 2**20
    await engine.stop(5)

    assert used <= estimate <= 1.25 * used


def test_the_estimate_grows_with_what_is_asked() -> None:
    """More room, contexts of their own, finer caches and GPUs all cost."""
    path = demo_model_path()
    facts = HARNESS.probe(path)

    def cost(devices: Sequence[Device] = CPU, **options: Any) -> int:
        return HARNESS.estimate(facts, spec(path, devices=devices, **options))

    assert cost() < cost(context=4096, shared_context=True) < cost(context=4096)
    assert cost(context=4096, cache_type_k="q8_0") < cost(context=4096)
    assert cost(prompt_cache_mb=100) == cost() + 100
    assert cost() < cost(GPUS[:1]) < cost(GPUS)


async def test_it_starts_under_uvloop_too() -> None:
    """The daemon runs on uvloop, whose processes are made differently."""

    async def life() -> bool:
        engine = await start(spec(demo_model_path()))
        await engine.stop(5)
        return psutil.pid_exists(engine.pid)

    assert not await asyncio.to_thread(uvloop.run, life())


async def test_an_engine_that_is_killed_says_so() -> None:
    """`wait` returns the reason; others use it to recover."""
    engine = await start(spec(demo_model_path()))
    os.kill(engine.pid, signal.SIGKILL)

    assert "SIGKILL" in (await engine.wait()).reason
    await engine.stop(1)


def test_a_truncated_file_is_refused_before_it_starts(tmp_path: Path) -> None:
    """Reading the header is enough."""
    broken = tmp_path / "m.gguf"
    broken.write_bytes(demo_model_path().read_bytes()[:5_000_000])
    with pytest.raises(PreflightFailed) as caught:
        HARNESS.probe(broken)

    assert caught.value.kind == "corrupt"


async def test_what_llama_cpp_refuses_is_told_in_our_words(tmp_path: Path) -> None:
    """An architecture it does not know, and a file that broke after it was read."""
    whole = demo_model_path().read_bytes()
    odd, broken = tmp_path / "odd.gguf", tmp_path / "broken.gguf"
    odd.write_bytes(_with_architecture(whole, b"llamb"))
    broken.write_bytes(whole)
    wanted = spec(broken)
    broken.write_bytes(whole[:5_000_000])
    kinds = []
    for each in (spec(odd), wanted):
        with pytest.raises(PreflightFailed) as caught:
            await start(each)
        kinds.append(caught.value.kind)

    assert kinds == ["unsupported_arch", "corrupt"]
    assert psutil.Process().children() == []


async def test_cancelling_a_load_leaves_no_process() -> None:
    """Whoever gives up during a load gets the memory back at once."""
    task = asyncio.create_task(start(spec(demo_model_path())))
    while not psutil.Process().children():  # noqa: ASYNC110 - processes set no events
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert psutil.Process().children() == []


def test_an_option_it_does_not_have_is_refused() -> None:
    """Before anything is started."""
    with pytest.raises(InvalidRequest):
        spec(demo_model_path(), n_ctx=4)


def _with_architecture(whole: bytes, name: bytes) -> bytes:
    key = b"general.architecture"
    at = whole.index(key) + len(key) + 4 + 8
    return whole[:at] + name + whole[at + len(name) :]
