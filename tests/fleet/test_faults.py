"""Kill anything: clients hear a clean word, the fleet recovers by itself, nobody is orphaned."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fleet.conversations import ask, entry, in_flight, status, stream
from tests.fleet.processes import Daemon, Workbench, eventually

pytestmark = pytest.mark.fleet

STORY: dict[str, Any] = {"text": "Tell a long story about a lighthouse.", "max_tokens": 400}


def engine_of(neuron: Daemon) -> psutil.Process:
    """Return the node's only engine process."""
    (engine,) = [
        one for one in neuron.descendants() if "cortex_neuron.llamacpp.engine" in one.cmdline()
    ]
    return engine


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "unstreamed"])
def test_a_killed_engine_fails_its_requests_and_comes_back(
    bench: Workbench,
    demo_model: Path,
    streamed: bool,  # noqa: FBT001
) -> None:
    """An error event on the open stream, 503 + Retry-After on the whole answer, then recovery."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")
    first = engine_of(neuron)

    with ThreadPoolExecutor(1) as pool:
        talk: Any = stream if streamed else ask
        talking = pool.submit(talk, cortex, "demo", **STORY)
        eventually(lambda: in_flight(neuron, "demo") == 1)
        if streamed:
            eventually(lambda: first.cpu_times().user > 0)
        first.kill()
        answer = talking.result()

    if streamed:
        assert [error["code"] for error in answer.errors()] == ["upstream_unreachable"]
        assert not answer.done
    else:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
    assert ask(cortex, "demo").status_code == 200
    assert status(neuron, "demo") == "loaded"
    assert engine_of(neuron).pid != first.pid
    assert len(neuron.events("engine.crashed")) == 1


def test_a_killed_neuron_takes_its_engines_along_and_may_come_back(
    bench: Workbench, demo_model: Path
) -> None:
    """503 + Retry-After while it is away; the same request works once it is back."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")
    engine = engine_of(neuron)

    with ThreadPoolExecutor(1) as pool:
        talking = pool.submit(stream, cortex, "demo", **STORY)
        eventually(lambda: in_flight(neuron, "demo") == 1)
        neuron.kill()
        told = talking.result()
    away = ask(cortex, "demo")

    assert not told.done
    assert len(told.errors()) == 1
    assert away.status_code == 503
    assert int(away.headers["retry-after"]) >= 1
    eventually(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)
    eventually(lambda: cortex.http.get(f"{cortex.url}/health").json()["status"] == "degraded")
    assert cortex.http.get(f"{cortex.url}/ready").status_code == 503

    neuron.start()
    eventually(lambda: cortex.http.get(f"{cortex.url}/health").json()["status"] == "ok")
    assert ask(cortex, "demo").status_code == 200


def test_a_killed_cortex_frees_the_seats_it_held(bench: Workbench, demo_model: Path) -> None:
    """The node notices, and a new cortex knows everything from one look."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")

    with ThreadPoolExecutor(1) as pool:
        talking = pool.submit(stream, cortex, "demo", **STORY)
        eventually(lambda: in_flight(neuron, "demo") == 1)
        cortex.kill()
        assert talking.exception() is not None
    eventually(lambda: in_flight(neuron, "demo") == 0, within=1.0)

    cortex.start()
    answer = ask(cortex, "demo")
    assert answer.status_code == 200
    assert len(neuron.events("model.loaded")) == 1


@pytest.mark.parametrize("who", ["cortex", "neuron"])
def test_sigterm_lets_a_running_answer_end(bench: Workbench, demo_model: Path, who: str) -> None:
    """Newcomers hear 503 + Retry-After, the one in flight hears its end, the process exits 0."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")
    leaving = {"cortex": cortex, "neuron": neuron}[who]
    below = leaving.descendants()

    with ThreadPoolExecutor(1) as pool:
        talking = pool.submit(stream, cortex, "demo", text="Tell a story.", max_tokens=150)
        eventually(lambda: in_flight(neuron, "demo") == 1)
        leaving.signal(signal.SIGTERM)
        told = talking.result()

    assert told.done
    assert told.errors() == []
    assert leaving.wait() == 0
    assert [one for one in below if one.is_running()] == []


def test_an_idle_fleet_ends_at_once(bench: Workbench, demo_model: Path) -> None:
    """No drain to wait for, no timeout to sit out."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")

    began = time.monotonic()
    statuses = [cortex.stop(), neuron.stop()]

    assert statuses == [0, 0]
    assert time.monotonic() - began < 5


def test_another_replica_takes_over_before_the_first_byte(
    bench: Workbench, demo_model: Path
) -> None:
    """A node that died a moment ago costs its client nothing."""
    one, two = bench.neuron("n1"), bench.neuron("n2")
    cortex = bench.cortex({"n1": one.url, "n2": two.url}, [entry("demo", demo_model)])
    for neuron in (one, two):
        body = {"model_id": "demo", "source": str(demo_model), "options": {"context": 512}}
        assert neuron.http.post(f"{neuron.url}/models/load", json=body).status_code == 200
    eventually(lambda: loaded_on(cortex) == ["n1", "n2"])

    one.kill()
    answers = [ask(cortex, "demo") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert {line["node"] for line in cortex.events("request.done")} == {"n2"}


def test_an_engine_that_keeps_dying_is_given_up(bench: Workbench, demo_model: Path) -> None:
    """Restarts are bounded; the model shows as failed and clients are told to come back later."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)], timeouts={"hold": 1})
    ask(cortex, "demo")

    for crash in range(5):
        eventually(lambda: status(neuron, "demo") == "loaded", within=60)
        os.kill(engine_of(neuron).pid, signal.SIGKILL)
        eventually(lambda n=crash: len(neuron.events("engine.crashed")) == n + 1)  # type: ignore[misc]
    eventually(lambda: status(neuron, "demo") == "failed")
    answer = ask(cortex, "demo")

    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert cortex.http.get(f"{cortex.url}/health").json()["status"] == "impaired"


def loaded_on(cortex: Daemon) -> list[str]:
    """Return the nodes that have the demo model loaded, as cortex sees it."""
    data = cortex.http.get(f"{cortex.url}/v1/models").json()["data"]
    return sorted(
        place["node"] for one in data for place in one["locations"] if place["status"] == "loaded"
    )
