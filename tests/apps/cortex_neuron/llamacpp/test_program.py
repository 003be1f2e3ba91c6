"""Engines that are a program: a `llama-server` in the place of the bindings."""

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cortex_core.errors import ApiError, EngineStartFailed, PreflightFailed
from cortex_core.settings import LlamaCppSettings
from cortex_neuron.llamacpp.harness import LlamaCppEngine, LlamaCppHarness
from cortex_neuron.llamacpp.program import arguments
from tests.apps.cortex_neuron.llamacpp.llama_server import options
from tests.apps.cortex_neuron.llamacpp.test_harness import ask, client, spec
from tests.demo_model import demo_model_path

SERVER = Path(__file__).with_name("llama_server.py")
TASK: Mapping[str, Any] = {
    "program": "/bin/llama-server",
    "path": "/srv/model.gguf",
    "model_id": "org/model",
    "secret": "secret",
    "cells": 1024,
    "parallel": 2,
    "unified": False,
    "batch": 256,
    "ubatch": 512,
    "gpu_layers": -1,
    "threads": 3,
    "cache_type_k": "q8_0",
    "cache_type_v": "f16",
    "prompt_cache_mb": 0,
    "embedding": False,
    "pooling": None,
    "warmup": True,
    "reorder": True,
}


def program(folder: Path, line: str) -> str:
    """Return a `llama-server` that runs `line` of shell."""
    made = folder / "llama-server"
    made.write_text(f"#!/bin/sh\n{line}\n")
    made.chmod(0o755)
    return str(made)


def real(folder: Path) -> str:
    """Return one that runs models."""
    return program(folder, f'exec "{sys.executable}" "{SERVER}" "$@"')


async def start(binary: str, path: Path) -> LlamaCppEngine:
    """Start an engine by a program and tell nobody."""
    harness = LlamaCppHarness(LlamaCppSettings(), os.environ, program=binary)
    return await harness.start(spec(path, context=512, parallel=2), lambda _done, _total: None)


async def test_a_program_serves_like_the_bindings(tmp_path: Path) -> None:
    """The same slots, context, name and secret; gone with all it started when stopped."""
    engine = await start(real(tmp_path), demo_model_path())
    family = [psutil.Process(engine.pid), *psutil.Process(engine.pid).children(recursive=True)]
    async with client(engine) as http:
        answer = await ask(http, 3)
        stranger = await http.post("/v1/chat/completions", json={}, headers={"authorization": "no"})
    assert (engine.slots, engine.context) == (2, 512)
    assert answer["model"] == "demo"
    assert stranger.status_code == httpx.codes.UNAUTHORIZED
    assert len(family) == 2
    assert not any(engine.headers["authorization"][7:] in " ".join(p.cmdline()) for p in family)
    await engine.stop(5)
    _, alive = psutil.wait_procs(family, timeout=5)

    assert alive == []


async def test_a_crash_of_the_program_is_told_as_its_own(tmp_path: Path) -> None:
    """The signal that killed it is what the daemon hears."""
    engine = await start(real(tmp_path), demo_model_path())
    (child,) = psutil.Process(engine.pid).children()
    child.send_signal(signal.SIGSEGV)

    ending = await engine.wait()
    assert "SIGSEGV" in str(ending)


async def test_the_program_dies_with_its_engine(tmp_path: Path) -> None:
    """Also when the engine is killed without a word."""
    engine = await start(real(tmp_path), demo_model_path())
    (child,) = psutil.Process(engine.pid).children()
    os.kill(engine.pid, signal.SIGKILL)
    await engine.wait()
    _, alive = psutil.wait_procs([child], timeout=5)

    assert alive == []


async def test_a_file_that_the_program_refuses_is_the_files_fault(tmp_path: Path) -> None:
    """What it says on stderr is understood as the bindings' words are."""
    line = "echo \"unknown model architecture: 'mystery'\" >&2; exit 1"

    with pytest.raises(PreflightFailed, match="'mystery'"):
        await start(program(tmp_path, line), demo_model_path())


async def test_a_program_that_is_no_llama_server(tmp_path: Path) -> None:
    """It ends at once, and so does the load."""
    with pytest.raises(EngineStartFailed) as failed:
        await start(program(tmp_path, "exit 3"), demo_model_path())

    assert isinstance(failed.value, ApiError)


def test_the_command_line_says_all_of_the_task() -> None:
    """Every word is one that the real program knows, and nothing secret is among them."""
    said = arguments(TASK, 4711)

    assert said[0] == "/bin/llama-server"
    assert "secret" not in said
    given = options().parse_args(said[1:])
    assert (given.model, given.alias) == ("/srv/model.gguf", "org/model")
    assert (given.host, given.port) == ("127.0.0.1", 4711)
    assert (given.ctx_size, given.parallel) == (1024, 2)
    assert (given.batch_size, given.ubatch_size) == (256, 256)
    assert (given.cache_type_k, given.cache_type_v, given.cache_ram) == ("q8_0", "f16", 0)
    assert given.gpu_layers > 500
    assert given.fit == "off"
    assert given.pooling is None
    assert not any((given.kv_unified, given.embedding, given.no_warmup, given.no_repack))


def test_what_a_tokenizer_or_an_embedder_asks_for() -> None:
    """Each turn of the task has its word."""
    task = {
        **TASK,
        "gpu_layers": 0,
        "unified": True,
        "embedding": True,
        "pooling": "mean",
        "warmup": False,
        "reorder": False,
    }

    given = options().parse_args(arguments(task, 1)[1:])
    assert given.gpu_layers == 0
    assert given.pooling == "mean"
    assert given.kv_unified
    assert given.embedding
    assert given.no_warmup
    assert given.no_repack
