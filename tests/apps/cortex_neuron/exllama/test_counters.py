"""Tokens counted by a model's own files, in a process that has nothing else."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cortex_core.errors import InvalidRequest, PreflightFailed
from cortex_neuron.exllama.counters import Counters
from cortex_neuron.exllama.vocabulary import Vocabulary
from cortex_uplink import Limits, Uplink
from tests.apps.cortex_neuron.exllama.vocabularies import byte_level, write_model

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"


@pytest.fixture
async def counters() -> AsyncIterator[Counters]:
    """Counters, which leave no process behind."""
    uplink = Uplink(Limits(connect=5, first_byte=30, idle=10), keep_alive=False)
    made = Counters(uplink)
    yield made
    await made.aclose()
    await uplink.aclose()

    assert psutil.Process().children(recursive=True) == []


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The small files of a model, without any weights."""
    return write_model(
        tmp_path / "m",
        byte_level(),
        config={},
        tokenizer_config={"eos_token": "<|im_end|>", "chat_template": TEMPLATE},
    )


async def test_prompts_are_counted(counters: Counters, model: Path) -> None:
    """A chat by its template; texts, and tokens that are there already."""
    vocabulary = Vocabulary.from_folder(model)
    chat = {"messages": [{"role": "user", "content": "hello world"}]}
    rendered = "<|im_start|>user hello world<|im_end|>"

    async def count(**request: Any) -> int:
        return await counters.count(model, "m", request)

    assert await count(**chat) == len(vocabulary.encode_chat(rendered))
    assert await count(prompt="hello world") == len(vocabulary.encode_text("hello world"))
    assert await count(input=["hello", "hello"]) == 2 * await count(content="hello")
    assert await count(prompt=[5, 6, 7]) == 3
    assert len(counters.pids) == 1


async def test_what_cannot_be_counted_is_refused(counters: Counters, model: Path) -> None:
    """With the words of the engine."""
    seen = {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}
    with pytest.raises(InvalidRequest) as empty:
        await counters.count(model, "m", {})
    with pytest.raises(InvalidRequest) as image:
        await counters.count(model, "m", seen)

    assert empty.value.param == "prompt"
    assert image.value.code == "vision_unsupported"


async def test_files_that_cannot_be_read_are_named(counters: Counters, tmp_path: Path) -> None:
    """As a load would name them."""
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(PreflightFailed) as caught:
        await counters.count(tmp_path, "m", {"prompt": "x"})

    assert caught.value.kind == "corrupt"


async def test_a_counter_that_died_is_replaced(counters: Counters, model: Path) -> None:
    """Whoever asks next does not notice."""
    first = await counters.count(model, "m", {"prompt": "hello"})
    os.kill(counters.pids[0], signal.SIGKILL)
    again = await asyncio.gather(
        *(counters.count(model, "m", {"prompt": "hello"}) for _ in range(3))
    )

    assert again == [first] * 3
