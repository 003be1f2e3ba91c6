"""Checks of what is answered: quantised kernels, every cache mode, many streams, split tensors."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from cortex_neuron.exllama.cache_modes import CACHE_MODES
from cortex_neuron.exllama.harness import can_page
from tests.bench.asking import Asked, Client
from tests.fleet.conversations import Talk, row
from tests.fleet.processes import Daemon, NeverHappened, eventually
from tests.gpu.stage import LOAD_SECS, MODEL, OPTIONS, STREAMS, Stage
from tests.gpu.verdicts import Failed, NotApplicable

_TOKENS = 128
_SMALL = {"context": 1024, "cache_tokens": 1024}


def kernels(stage: Stage) -> str:
    """Quantised weights answer what everybody knows, and the same twice."""
    label = stage.facts.quantisation.label
    if label is None:
        raise NotApplicable("the model's weights are not quantised")
    stage.loaded()
    once, twice = stage.sane(stage.cortex), stage.sane(stage.cortex)
    if once != twice:
        raise Failed(f"greedy answers differ: {once!r} and {twice!r}")
    return f"{label}: {once!r}, twice"


def cache_modes(stage: Stage) -> str:
    """The model answers from a cache of each kind."""
    told = []
    for mode in CACHE_MODES:
        try:
            stage.loaded({**_SMALL, "cache_mode": mode})
            stage.sane(stage.neuron)
        except Failed as problem:
            raise Failed(f"{mode}: {problem}") from problem
        told.append(mode)
    return f"{', '.join(told)} answer"


def parallel_streams(stage: Stage) -> str:
    """Eight streams run at once, and each is whole."""
    _require_batching(stage)
    stage.loaded()
    began = time.perf_counter()
    answers = streams(stage.cortex, "parallel", _TOKENS)
    secs = time.perf_counter() - began
    if short := [one.tokens for one in answers if one.tokens != _TOKENS]:
        raise Failed(f"answers of {short} tokens, {_TOKENS} were asked for")
    if max(one.first_token_ms for one in answers) >= min(one.whole_ms for one in answers):
        raise Failed("one answer was over before another had begun")
    return f"{STREAMS} streams of {_TOKENS} tokens in {secs:.1f} s, all at once"


def tensor_parallel(stage: Stage) -> str:
    """Tensors that lie on two devices in part give the same answer."""
    if len(stage.devices) < 2:
        raise NotApplicable("there is one device only")
    if (reason := stage.facts.layout.indivisible) is not None:
        raise NotApplicable(f"the model cannot be split: {reason}")
    stage.unload()
    before = {one.index: one.vram_used_mb or 0 for one in stage.nvml.read()}
    pair = [device.index for device in stage.devices[:2]]
    stage.loaded({**OPTIONS, "tensor_parallel": True}, tensor_parallel=len(pair), devices=pair)
    stage.sane(stage.neuron)
    now = {one.index: one.vram_used_mb or 0 for one in stage.nvml.read()}
    took = [now[index] - before[index] for index in pair]
    if min(took) <= 0:
        raise Failed(f"one device holds nothing of it: {took} MiB")
    return f"answers from devices {pair}, which took {took} MiB"


def killed(stage: Stage) -> str:
    """An engine that is killed ends its stream with an error, and is there again."""
    stage.loaded()
    (old,) = stage.engines()
    talk = Talk(stage.cortex, MODEL, max_tokens=1500, ignore_eos=True)
    try:
        talk.under_way()
    except NeverHappened:
        stage.unload()  # which ends the stream, whatever held it up
        talk.end()
        raise
    psutil.Process(old.pid).kill()
    at = time.monotonic()
    streamed = talk.end()
    heard = time.monotonic() - at
    if talk.broken is not None or not streamed.errors():
        raise Failed(f"the stream ended without an error event: {talk.broken}")
    eventually(lambda: _serves_anew(stage, old.pid), within=LOAD_SECS, every=0.2)
    return f"the client heard after {heard:.2f} s; served again after {time.monotonic() - at:.1f} s"


def streams(daemon: Daemon, name: str, tokens: int) -> list[Asked]:
    """Return as many streams as run at once, each with a prompt of its own."""
    clients = [Client(daemon.url, {}) for _ in range(STREAMS)]
    try:
        with ThreadPoolExecutor(STREAMS) as pool:
            bodies = [chat(prompt, tokens) for prompt in prompts(name)]
            return list(
                pool.map(lambda pair: pair[0].ask(pair[1]), zip(clients, bodies, strict=True))
            )
    finally:
        for client in clients:
            client.close()


def prompts(name: str) -> Sequence[str]:
    """Return a prompt for each stream, that no cache knows from another `name`."""
    return [f"{name}, {number}: tell a long story of the sea." for number in range(STREAMS)]


def chat(prompt: str, tokens: int) -> dict[str, Any]:
    """Return a greedy chat that goes on for so many tokens."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


def _require_batching(stage: Stage) -> None:
    if not can_page([stage.first]):
        raise NotApplicable("the card's compute capability is below 8.0: one answer at a time")
    if not stage.facts.has_chat_template:
        raise NotApplicable("the model has no chat template")


def _serves_anew(stage: Stage, old: int) -> bool:
    found = row(stage.neuron, MODEL)
    if found is None or found["status"] != "loaded" or old in [e.pid for e in stage.engines()]:
        return False
    return stage.complete(stage.neuron).is_success
