"""Tokens arrive as they are made, and a client that leaves takes its work along."""

import itertools
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.conversations import CHAT, ask, entry, in_flight, say, stream
from tests.fleet.processes import Daemon, Workbench, eventually

pytestmark = pytest.mark.fleet

STORY: dict[str, Any] = {"text": "Tell a long story about a lighthouse.", "max_tokens": 300}


def test_tokens_arrive_one_by_one(bench: Workbench, demo_model: Path) -> None:
    """Sixty tokens take their time to be made, and are not held back until the end."""
    cortex = bench.cortex({"n1": bench.neuron().url}, [entry("demo", demo_model)])
    ask(cortex, "demo")

    began = time.monotonic()
    told = stream(cortex, "demo", text="Count to fifty.", max_tokens=60, temperature=0)
    took = time.monotonic() - began

    arrivals = [at for at, frame in told.frames if frame.startswith("data: {")]
    assert told.done
    assert len(arrivals) > 30
    assert arrivals[0] - began < took / 3
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    assert max(gaps) < took / 3


def test_usage_comes_to_those_who_ask(bench: Workbench, demo_model: Path) -> None:
    """The closing chunk is withheld from others, and counted for everybody."""
    cortex = bench.cortex({"n1": bench.neuron().url}, [entry("demo", demo_model)])

    without = stream(cortex, "demo")
    with_usage = stream(cortex, "demo", stream_options={"include_usage": True})

    assert [c for c in without.payloads() if c.get("usage")] == []
    last = with_usage.payloads()[-1]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 8
    done = eventually(lambda: two(cortex.events("request.done")))
    assert [line["completion_tokens"] for line in done] == [8, 8]
    assert all(line["ttft_ms"] > 0 for line in done)


def test_a_folded_answer_equals_the_streamed_one(bench: Workbench, demo_model: Path) -> None:
    """One pipeline: the same text, finish and usage on both paths."""
    cortex = bench.cortex({"n1": bench.neuron().url}, [entry("demo", demo_model)])
    same = {"temperature": 0, "seed": 1, "max_tokens": 12}

    whole = ask(cortex, "demo", **same).json()
    told = stream(cortex, "demo", **same, stream_options={"include_usage": True})

    assert whole["choices"][0]["message"]["content"] == told.text()
    assert whole["choices"][0]["finish_reason"] == "length"
    usage = told.payloads()[-1]["usage"]
    assert whole["usage"]["completion_tokens"] == usage["completion_tokens"] == 12
    assert whole["usage"]["prompt_tokens"] == usage["prompt_tokens"]


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "unstreamed"])
def test_a_client_that_hangs_up_frees_its_seat(
    bench: Workbench,
    demo_model: Path,
    streamed: bool,
) -> None:
    """Within 250 ms at the node, and the engine is free for the next one at once."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model, options={"parallel": 1})])
    ask(cortex, "demo")
    began = time.monotonic()
    ask(cortex, "demo", max_tokens=1)
    usual = time.monotonic() - began

    hang_up(cortex, neuron, streamed=streamed)
    left = time.monotonic()
    eventually(lambda: in_flight(neuron, "demo") == 0, within=2.0, every=0.005)
    freed = time.monotonic() - left

    began = time.monotonic()
    assert ask(cortex, "demo", max_tokens=1).status_code == 200
    assert freed < 0.25
    assert time.monotonic() - began < 5 * usual + 0.5
    eventually(lambda: any(line.get("client_gone") for line in cortex.events("request.done")))


def two(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines once there are two of them."""
    return lines if len(lines) == 2 else []


def hang_up(cortex: Daemon, neuron: Daemon, *, streamed: bool) -> None:
    """Start a long generation and leave in the middle of it."""
    body = json.dumps(say("demo", stream=streamed, **STORY)).encode()
    host, port = cortex.url.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + body)
        eventually(lambda: in_flight(neuron, "demo") == 1)
        if streamed:
            client.recv(1)
