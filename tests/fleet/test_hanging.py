"""The real engine under a watch that is much stricter than anybody's: hung is told from busy."""

import signal
import time
from pathlib import Path

import pytest

from tests.fleet.conversations import Talk, ask, status
from tests.fleet.processes import Daemon, Workbench, eventually
from tests.fleet.test_faults import engine_of

pytestmark = pytest.mark.fleet

HANG_SECS = 0.8


@pytest.fixture
def neuron(bench: Workbench, demo_model: Path) -> Daemon:
    """A node with the real model, which calls an engine hung after less than a second."""
    made = bench.neuron(timeouts={"hang": HANG_SECS})
    body = {"model_id": "demo", "source": str(demo_model), "options": {"context": 2048}}
    assert made.http.post(f"{made.url}/models/load", json=body).status_code == 200
    return made


def test_a_long_prefill_is_no_hang(neuron: Daemon) -> None:
    """However much longer than the limit it takes: the engine answers its health meanwhile."""
    began = time.monotonic()
    answer = ask(neuron, "demo", text="The keeper of the lighthouse writes. " * 100)
    took = time.monotonic() - began

    assert answer.status_code == 200
    assert answer.json()["usage"]["prompt_tokens"] > 600
    assert took > 2 * HANG_SECS
    assert neuron.events("engine.crashed") == []


def test_a_frozen_engine_is_replaced(neuron: Daemon) -> None:
    """Its stream ends in an error event long before any other limit, and it serves again."""
    first = engine_of(neuron)
    talk = Talk(neuron, "demo", text="Tell a long story.", max_tokens=400)
    talk.under_way()
    frozen = time.monotonic()
    first.send_signal(signal.SIGSTOP)
    told = talk.end()
    took = time.monotonic() - frozen
    eventually(lambda: status(neuron, "demo") == "loaded")

    assert [error["code"] for error in told.errors()] == ["upstream_unreachable"]
    assert took < 10
    assert [one["fault"] for one in neuron.events("engine.crashed")] == ["hung"]
    assert ask(neuron, "demo").status_code == 200
    assert engine_of(neuron).pid != first.pid
