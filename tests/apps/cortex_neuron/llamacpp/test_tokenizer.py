"""Counting with the model's own files gives the engine's own numbers."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cortex_core.errors import InvalidRequest, PreflightFailed
from cortex_core.settings import LlamaCppSettings
from cortex_core.wire import Device
from cortex_neuron.llamacpp.harness import LlamaCppHarness
from cortex_neuron.llamacpp.tokenizer import Tokenizers
from tests.demo_model import demo_model_path

CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "hi"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "né 🦙 " * 8},
        ]
    },
    {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "parts"}]}],
        "stream": True,
    },
]
TEXTS: list[dict[str, Any]] = [{"prompt": "Once upon a time"}, {"prompt": [1, 2, 3]}]


@pytest.fixture(name="tokenizers")
async def _tokenizers() -> AsyncIterator[Tokenizers]:
    tokenizers = Tokenizers()
    yield tokenizers
    await tokenizers.aclose()
    assert psutil.Process().children() == []


async def count(tokenizers: Tokenizers, body: dict[str, Any], path: Path | None = None) -> int:
    """Count `body` with the demo model, or with the file at `path`."""
    return await tokenizers.count(path or demo_model_path(), "demo", body)


async def test_counts_equal_what_the_engine_bills(tokenizers: Tokenizers) -> None:
    """Chats and plain prompts, against `usage.prompt_tokens` of an engine that answers them."""
    harness = LlamaCppHarness(LlamaCppSettings(context=2048, parallel=1))
    path = demo_model_path()
    spec = harness.configure(
        harness.probe(path), model_id="demo", path=path, devices=[Device(index=0, kind="cpu")]
    )
    engine = await harness.start(spec, lambda _done, _total: None)
    billed = []
    async with httpx.AsyncClient(base_url=engine.url, headers=engine.headers, timeout=120) as http:
        for route, bodies in (("/v1/chat/completions", CHATS), ("/v1/completions", TEXTS)):
            for body in bodies:
                answer = await http.post(route, json={**body, "stream": False, "max_tokens": 1})
                billed.append(answer.json()["usage"]["prompt_tokens"])
    await engine.stop(5)
    counted = [await count(tokenizers, body) for body in CHATS + TEXTS]

    assert counted == billed


async def test_several_prompts_add_up(tokenizers: Tokenizers) -> None:
    """A list of texts counts as all of them."""
    one, two = [await count(tokenizers, {"prompt": text}) for text in ("a b", "c")]

    assert await count(tokenizers, {"prompt": ["a b", "c"]}) == one + two
    assert await count(tokenizers, {"input": [[1, 2], [3]]}) == 3


async def test_a_prompt_longer_than_any_context_is_counted(tokenizers: Tokenizers) -> None:
    """Counting needs no room for the tokens."""
    assert await count(tokenizers, {"prompt": "word " * 20_000}) > 20_000


@pytest.mark.parametrize("body", [{}, {"prompt": {"a": 1}}, {"prompt": [True]}, {"messages": "hi"}])
async def test_what_cannot_be_counted_is_refused(
    tokenizers: Tokenizers, body: dict[str, Any]
) -> None:
    """A body that is no prompt is the client's mistake."""
    with pytest.raises(InvalidRequest):
        await count(tokenizers, body)


async def test_callers_share_one_process(tokenizers: Tokenizers) -> None:
    """Many at once start one tokenizer."""
    counts = await asyncio.gather(*(count(tokenizers, {"prompt": "a b c"}) for _ in range(8)))

    assert len(set(counts)) == 1
    assert len(tokenizers.pids) == 1


async def test_no_more_than_the_limit_live_at_once(tmp_path: Path) -> None:
    """A third model takes the place of the longest unused; many callers all get on."""
    paths = [tmp_path / f"{n}.gguf" for n in range(3)]
    for path in paths:
        path.symlink_to(demo_model_path())
    tokenizers = Tokenizers(limit=2)
    counts = await asyncio.gather(*(count(tokenizers, {"prompt": "a"}, p) for p in paths * 2))
    left = tokenizers.pids
    await tokenizers.aclose()

    assert len(set(counts)) == 1
    assert len(left) <= 2
    assert psutil.Process().children() == []


async def test_an_idle_process_goes() -> None:
    """After a while without a question its memory comes back."""
    tokenizers = Tokenizers(idle_secs=0.05)
    await count(tokenizers, {"prompt": "a"})
    children = psutil.Process().children()
    _, alive = await asyncio.to_thread(_wait_beside, children)
    await tokenizers.aclose()

    assert len(children) == 1
    assert alive == []


async def test_a_dead_process_is_replaced(tokenizers: Tokenizers) -> None:
    """A crash costs no more than a new start."""
    first = await count(tokenizers, {"prompt": "a b"})
    os.kill(tokenizers.pids[0], signal.SIGKILL)
    while psutil.Process().children():  # noqa: ASYNC110 - processes set no events
        await asyncio.sleep(0.01)

    assert await count(tokenizers, {"prompt": "a b"}) == first


async def test_a_file_that_is_no_model_is_refused_each_time(
    tokenizers: Tokenizers, tmp_path: Path
) -> None:
    """A failed start is not kept."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nonsense")
    for _ in range(2):
        with pytest.raises(PreflightFailed):
            await count(tokenizers, {"prompt": "a"}, broken)


def _wait_beside(
    children: list[psutil.Process],
) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Wait for the end of `children`, which the loop reaps."""
    gone, alive = psutil.wait_procs(children, timeout=10)
    return gone, alive
