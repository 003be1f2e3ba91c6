"""A whole fleet: cortex, a neuron whose GPU is a file, and an engine of the real exllamav2."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.exllamav2.tiny_models import write_random, write_scripted
from tests.fake_nvml.gpus import RTX_3090, Gpus, compiled
from tests.fleet.processes import Daemon, Workbench, eventually, workbench

MODEL = "org/speaker"
OPTIONS = {"context": 1024, "chunk": 256, "parallel": 4}


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpus]:
    """A machine with one GPU, which NVML tells of."""
    library = compiled(tmp_path_factory.mktemp("nvml"))
    gpus = Gpus(tmp_path_factory.mktemp("gpus") / "state", library)
    gpus.plug(0, RTX_3090)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in gpus.environment.items():
            patch.setenv(name, value)
        yield gpus


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: one that says a line, and one that says anything."""
    folder = tmp_path_factory.mktemp("models") / "org"
    write_scripted(folder / "speaker", ["It is", " sunny", " in ", "Oslo", "."])
    write_random(folder / "chance")
    return folder.parent


@pytest.fixture(scope="module")
def bench_of_all(
    tmp_path_factory: pytest.TempPathFactory, card: Gpus, models: Path
) -> Iterator[tuple[Workbench, Daemon, Daemon]]:
    """A neuron that was told nothing of harnesses, and a cortex in front of it."""
    with workbench(tmp_path_factory.mktemp("bench")) as bench:
        neuron = bench.neuron(model_dirs=[str(models)])
        entries = [
            {"id": f"org/{name}", "source": str(models / "org" / name), "options": OPTIONS}
            for name in ("speaker", "chance")
        ]
        yield bench, neuron, bench.cortex({"n1": neuron.url}, entries)


@pytest.fixture
def neuron(bench_of_all: tuple[Workbench, Daemon, Daemon]) -> Daemon:
    """The node."""
    return bench_of_all[1]


@pytest.fixture
def client(bench_of_all: tuple[Workbench, Daemon, Daemon]) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, pointed at the cortex."""
    cortex = bench_of_all[2]
    with openai.OpenAI(base_url=f"{cortex.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, model: str = MODEL, **more: Any) -> Any:
    """Ask for a short greedy chat."""
    return client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Weather?"}],
        **{"temperature": 0, "max_tokens": 64, **more},
    )


def row(neuron: Daemon, model: str) -> dict[str, Any]:
    """Return the node's row of a model."""
    rows: list[dict[str, Any]] = neuron.http.get(f"{neuron.url}/models").json()
    return next(one for one in rows if one["id"] == model)


def test_the_node_says_which_harnesses_it_has(neuron: Daemon) -> None:
    """Both can be used here; the models on its disk are for this one, and fit."""
    found = neuron.http.get(f"{neuron.url}/discovery").json()
    local = eventually(
        lambda: {one["id"]: one for one in neuron.http.get(f"{neuron.url}/models").json()}
    )

    assert "exllamav2" in found["harnesses"]
    assert found["devices"][0]["uuid"] == RTX_3090["uuid"]
    assert local["org/chance"]["harness"] == "exllamav2"
    assert 640 < local["org/chance"]["vram_required_mb"] < 24576


def test_an_sdk_is_answered_by_a_model_that_was_not_loaded(
    client: openai.OpenAI, neuron: Daemon
) -> None:
    """cortex, neuron, engine: the files chose the harness, and the answer is the model's."""
    answer = ask(client)

    assert answer.choices[0].message.content == "It is sunny in Oslo."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 6
    loaded = row(neuron, MODEL)
    assert (loaded["harness"], loaded["status"]) == ("exllamav2", "loaded")
    assert loaded["limit"]["context"] == 1024


def test_a_stream_arrives_in_pieces(client: openai.OpenAI) -> None:
    """With usage at its end for whoever wants it."""
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))

    pieces = [one.choices[0].delta.content for one in chunks if one.choices]
    assert "".join(filter(None, pieces)) == "It is sunny in Oslo."
    assert len([piece for piece in pieces if piece]) == 5
    assert chunks[-1].usage.completion_tokens == 6


def test_schemas_and_stops_come_through(client: openai.OpenAI) -> None:
    """What an engine of ours can do, a client of the fleet can ask for."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}

    said = ask(client, "org/chance", response_format=form, seed=1, max_tokens=900)
    cut = ask(client, stop=[" in "])

    assert isinstance(json.loads(said.choices[0].message.content)["ok"], bool)
    assert cut.choices[0].message.content == "It is sunny"


def test_refusals_keep_their_codes(client: openai.OpenAI) -> None:
    """What the engine refuses reaches the client in the engine's words."""
    with pytest.raises(openai.BadRequestError) as schema:
        ask(client, response_format={"type": "json_schema", "json_schema": {"schema": 7}})
    with pytest.raises(openai.BadRequestError) as length:
        client.completions.create(model=MODEL, prompt="the " * 3000)

    assert schema.value.param == "response_format"
    assert length.value.code == "context_length_exceeded"


def test_tokens_are_counted_from_the_files(client: openai.OpenAI, neuron: Daemon) -> None:
    """As many as the model counts when it answers, and no model is loaded for it."""
    messages = [{"role": "user", "content": "Weather?"}]
    counted = neuron.http.post(
        f"{neuron.url}/tokenize", json={"model": "org/chance", "messages": messages}
    ).json()

    assert counted["count"] == ask(client, "org/chance", max_tokens=1).usage.prompt_tokens


def test_a_client_that_leaves_frees_the_engine(client: openai.OpenAI, neuron: Daemon) -> None:
    """Through both daemons, within a second."""
    stream = ask(client, "org/chance", stream=True, max_tokens=900, extra_body={"ignore_eos": True})
    next(iter(stream))
    assert row(neuron, "org/chance")["in_flight"] == 1
    stream.close()
    left = time.monotonic()
    eventually(lambda: row(neuron, "org/chance")["in_flight"] == 0)

    assert time.monotonic() - left < 1.0


def test_unloading_ends_the_process(client: openai.OpenAI, neuron: Daemon) -> None:
    """And with it everything that the model held."""
    ask(client)
    before = {one.pid for one in neuron.descendants()}
    neuron.http.post(f"{neuron.url}/models/unload", json={"model_id": MODEL})
    after = {one.pid for one in neuron.descendants()}

    (ended,) = before - after
    assert not psutil.pid_exists(ended)
    assert ask(client).choices[0].message.content == "It is sunny in Oslo."


def test_an_engine_that_is_killed_comes_back(client: openai.OpenAI, neuron: Daemon) -> None:
    """The node starts it again by itself, and it serves."""
    ask(client)
    loaded = row(neuron, MODEL)["loaded_at"]
    engines = [one for one in neuron.descendants() if "exllama.engine" in " ".join(one.cmdline())]
    for one in engines:
        one.kill()
    eventually(lambda: row(neuron, MODEL).get("loaded_at", loaded) > loaded, within=60)

    assert ask(client).choices[0].message.content == "It is sunny in Oslo."


def test_a_load_that_runs_out_of_memory_is_told_with_the_arithmetic(
    tmp_path: Path, card: Gpus, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was reckoned before: the node says what it knows of its memory."""
    fault = tmp_path / "fault"
    fault.write_text("CUDA out of memory. Tried to allocate 2.00 GiB")
    monkeypatch.setenv("STAND_IN_FAULT", str(fault))
    with workbench(tmp_path) as bench:
        neuron = bench.neuron()
        load = {"model_id": "m", "source": str(models / "org" / "chance"), "options": OPTIONS}
        answer = neuron.http.post(f"{neuron.url}/models/load", json=load)

    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "insufficient_vram"


def test_no_engine_outlives_its_node(tmp_path: Path, card: Gpus, models: Path) -> None:
    """However the node ends."""
    with workbench(tmp_path) as bench:
        neuron = bench.neuron()
        load = {"model_id": "m", "source": str(models / "org" / "chance"), "options": OPTIONS}
        assert neuron.http.post(f"{neuron.url}/models/load", json=load).status_code == 200
        engines = neuron.descendants()
        neuron.kill()
        gone, alive = psutil.wait_procs(engines, timeout=10)

    assert gone
    assert alive == []
