"""Kill anything: clients hear a clean word, the fleet recovers by itself, nobody is orphaned."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fleet.conversations import Talk, ask, entry, in_flight, status
from tests.fleet.processes import Daemon, Workbench, eventually

pytestmark = pytest.mark.fleet

STORY: dict[str, Any] = {"text": "Tell a long story about a lighthouse.", "max_tokens": 400}


def engine_of(neuron: Daemon) -> psutil.Process:
    """Return the node's only engine process."""
    (engine,) = [
        one for one in neuron.descendants() if "cortex_neuron.llamacpp.engine" in one.cmdline()
    ]
    return engine


def test_a_killed_engine_ends_its_streams_in_an_error_event_and_comes_back(
    bench: Workbench, demo_model: Path
) -> None:
    """The stream says so, the next request waits for the new engine and is served."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")
    first = engine_of(neuron)

    talk = Talk(cortex, "demo", **STORY)
    talk.under_way()
    first.kill()
    told = talk.end()

    assert [error["code"] for error in told.errors()] == ["upstream_unreachable"]
    assert not told.done
    eventually(lambda: neuron.events("engine.crashed"))
    assert ask(cortex, "demo").status_code == 200
    assert engine_of(neuron).pid != first.pid
    assert len(neuron.events("engine.crashed")) == 1


def test_a_killed_engine_fails_whole_answers_with_503_at_once(
    bench: Workbench, demo_model: Path
) -> None:
    """With Retry-After, in a moment, and never as half an answer."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")

    with ThreadPoolExecutor(1) as pool:
        talking = pool.submit(ask, cortex, "demo", **STORY)
        eventually(lambda: in_flight(neuron, "demo") == 1)
        killed = time.monotonic()
        engine_of(neuron).kill()
        answer = talking.result()

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert time.monotonic() - killed < 2
    eventually(lambda: status(neuron, "demo") == "loaded")
    assert ask(cortex, "demo").status_code == 200


def test_a_killed_neuron_takes_its_engines_along_and_may_come_back(
    bench: Workbench, demo_model: Path
) -> None:
    """503 + Retry-After while it is away; the same request works once it is back."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")
    engine = engine_of(neuron)

    talk = Talk(cortex, "demo", **STORY)
    talk.under_way()
    neuron.kill()
    told = talk.end()
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

    talk = Talk(cortex, "demo", **STORY)
    talk.under_way()
    cortex.kill()
    talk.end()
    assert talk.broken is not None
    eventually(lambda: in_flight(neuron, "demo") == 0, within=1.0)

    cortex.start()
    assert ask(cortex, "demo").status_code == 200
    assert len(neuron.events("model.loaded")) == 1


@pytest.mark.parametrize("who", ["cortex", "neuron"])
def test_sigterm_lets_a_running_answer_end(bench: Workbench, demo_model: Path, who: str) -> None:
    """Newcomers hear 503 + Retry-After, the one in flight hears its end, the process exits 0."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")
    leaving = {"cortex": cortex, "neuron": neuron}[who]
    below = leaving.descendants()

    talk = Talk(cortex, "demo", text="Tell a story.", max_tokens=150)
    talk.under_way()
    leaving.signal(signal.SIGTERM)
    told = talk.end()

    assert told.done
    assert told.errors() == []
    assert leaving.wait() == 0
    assert [one for one in below if one.is_running()] == []


@pytest.mark.parametrize("who", ["cortex", "neuron"])
def test_sigterm_lets_a_whole_answer_out(bench: Workbench, demo_model: Path, who: str) -> None:
    """The drain ends when the answer has been sent, not when it has been made."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])
    ask(cortex, "demo")
    leaving = {"cortex": cortex, "neuron": neuron}[who]

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask, cortex, "demo", text="Tell a story.", max_tokens=60)
        eventually(lambda: in_flight(neuron, "demo") == 1)
        leaving.signal(signal.SIGTERM)
        answer = asking.result()

    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    assert leaving.wait() == 0


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


def loaded_on(cortex: Daemon) -> list[str]:
    """Return the nodes that have the demo model loaded, as cortex sees it."""
    data = cortex.http.get(f"{cortex.url}/v1/models").json()["data"]
    return sorted(
        place["node"] for one in data for place in one["locations"] if place["status"] == "loaded"
    )
