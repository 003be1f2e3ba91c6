"""Models come when they are asked for, once, and leave when another needs the room."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from cortex_core.settings import LlamaCppSettings
from cortex_core.wire import Device
from cortex_neuron.llamacpp.harness import LlamaCppHarness
from tests.fleet.conversations import CHAT, ask, entry, row, say, status, stream
from tests.fleet.processes import Daemon, Workbench, eventually

pytestmark = pytest.mark.fleet


def test_the_first_request_loads_the_model(bench: Workbench, demo_model: Path) -> None:
    """Nothing is loaded, somebody asks, and gets a real answer."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])

    answer = ask(cortex, "demo")

    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"]
    assert status(neuron, "demo") == "loaded"
    assert len(eventually(lambda: cortex.events("request.done"))) == 1


def test_ten_first_requests_load_it_once(bench: Workbench, demo_model: Path) -> None:
    """One load gate: everybody is served by the same engine."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model)])

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: ask(cortex, "demo"), range(10)))

    assert [answer.status_code for answer in answers] == [200] * 10
    assert len(eventually(lambda: neuron.events("model.loaded"))) == 1


def test_ten_direct_loads_start_one_engine(bench: Workbench, demo_model: Path) -> None:
    """The node's own gate holds without any cortex."""
    neuron = bench.neuron()
    body = {"model_id": "demo", "source": str(demo_model), "options": {"context": 512}}

    with ThreadPoolExecutor(10) as pool:
        answers = list(
            pool.map(lambda _: neuron.http.post(f"{neuron.url}/models/load", json=body), range(10))
        )

    assert [answer.json()["status"] for answer in answers] == ["loaded"] * 10
    assert len(eventually(lambda: neuron.events("model.loaded"))) == 1
    assert len(engines(neuron)) == 1


def test_two_models_that_do_not_fit_together_take_turns(bench: Workbench, demo_model: Path) -> None:
    """The least recently used one leaves, and comes back when it is asked for again."""
    neuron = narrow_neuron(bench, demo_model)
    models = [entry("one", demo_model), entry("two", demo_model)]
    cortex = bench.cortex({"n1": neuron.url}, models)

    for model, other in [("one", "two"), ("two", "one"), ("one", "two")]:
        assert ask(cortex, model).status_code == 200
        assert status(neuron, model) == "loaded"
        assert status(neuron, other) is None

    evicted = [line["evicted"] for line in neuron.events("model.loaded")]
    assert evicted == [[], ["one"], ["two"]]
    assert len(engines(neuron)) == 1


def test_a_model_in_use_is_not_evicted(bench: Workbench, demo_model: Path) -> None:
    """A running generation ends before its model leaves, and the newcomer is served after it."""
    neuron = narrow_neuron(bench, demo_model)
    models = [entry("one", demo_model), entry("two", demo_model)]
    cortex = bench.cortex({"n1": neuron.url}, models)
    ask(cortex, "one")

    with ThreadPoolExecutor(2) as pool:
        long = pool.submit(stream, cortex, "one", max_tokens=150, text="Tell a long story.")
        eventually(lambda: (row(neuron, "one") or {}).get("in_flight") == 1)
        other = pool.submit(ask, cortex, "two")
        told, answer = long.result(), other.result()

    assert told.done
    assert told.errors() == []
    assert answer.status_code == 200
    assert status(neuron, "two") == "loaded"


def test_two_models_wanted_by_many_are_served_in_batches(
    bench: Workbench, demo_model: Path
) -> None:
    """Twelve requests that alternate are all answered, with a few swaps instead of eleven."""
    neuron = narrow_neuron(bench, demo_model)
    models = [entry("one", demo_model), entry("two", demo_model)]
    cortex = bench.cortex({"n1": neuron.url}, models)

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: ask(cortex, ("one", "two")[n % 2]), range(12)))

    assert [answer.status_code for answer in answers] == [200] * 12
    assert len(neuron.events("model.loaded")) <= 4
    assert len(engines(neuron)) == 1


def test_a_request_that_nobody_waits_for_any_more_swaps_nothing(
    bench: Workbench, demo_model: Path
) -> None:
    """Its client hung up while the other model was in use: that model stays."""
    neuron = narrow_neuron(bench, demo_model)
    models = [entry("one", demo_model), entry("two", demo_model)]
    cortex = bench.cortex({"n1": neuron.url}, models)
    ask(cortex, "one")

    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(stream, cortex, "one", max_tokens=300, text="Tell a long story.")
        eventually(lambda: (row(neuron, "one") or {}).get("in_flight") == 1)
        with pytest.raises(httpx.ReadTimeout):
            cortex.http.post(f"{cortex.url}{CHAT}", json=say("two"), timeout=0.5)
        told = long.result()

    assert told.done
    assert neuron.events("model.unloaded") == []
    assert ask(cortex, "one").status_code == 200
    assert status(neuron, "one") == "loaded"


def test_a_load_that_does_not_fit_touches_nothing(bench: Workbench, demo_model: Path) -> None:
    """409 with the arithmetic, and whoever could leave is named but stays."""
    neuron = narrow_neuron(bench, demo_model)
    load(neuron, "one", demo_model)

    body = {"model_id": "two", "source": str(demo_model), "options": {"context": 512}}
    refused = neuron.http.post(f"{neuron.url}/models/load", json=body)

    error = refused.json()["error"]
    assert refused.status_code == 409
    assert error["code"] == "insufficient_vram"
    assert error["needed_mb"] > error["free_mb"]
    assert error["evictable"] == ["one"]
    assert status(neuron, "one") == "loaded"


def narrow_neuron(bench: Workbench, path: Path) -> Daemon:
    """Start a node with room for one demo model and a half."""
    harness = LlamaCppHarness(LlamaCppSettings(context=512))
    facts = harness.probe(path)
    cpu = Device(index=0, kind="cpu")
    spec = harness.configure(facts, model_id="demo", path=path, devices=[cpu])
    room_mb = harness.estimate(facts, spec) * 1.5
    share = room_mb / (psutil.virtual_memory().total / 2**20)
    return bench.neuron(devices={"cpu_memory_share": share})


def load(neuron: Daemon, model: str, path: Path) -> None:
    """Load the demo model under this id."""
    body = {"model_id": model, "source": str(path), "options": {"context": 512}}
    answer = neuron.http.post(f"{neuron.url}/models/load", json=body)
    assert answer.status_code == 200, answer.text


def engines(neuron: Daemon) -> list[psutil.Process]:
    """Return the node's engine processes."""
    return [one for one in neuron.descendants() if "cortex_neuron.llamacpp.engine" in one.cmdline()]
