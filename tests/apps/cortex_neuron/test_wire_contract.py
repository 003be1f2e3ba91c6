"""What a gateway, an operator or a bare client sees of a node: every route, with a real model."""

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from cortex_core import __version__
from tests.fleet.conversations import (
    CHAT,
    Talk,
    ask,
    entry,
    frames,
    in_flight,
    row,
    say,
    status,
    stream,
)
from tests.fleet.processes import Daemon, NeverHappened, eventually, workbench

pytestmark = pytest.mark.fleet

DEMO, EMBEDDER, LOCAL = "org/demo", "org/embedder", "tiny"
LOAD, UNLOAD = "/models/load", "/models/unload"
CONTEXT = 512
#: Whatever the model would say, it says this.
CATS = 'root ::= "a cat, a dog"'
STORY = {"text": "Tell a long story about a lighthouse.", "max_tokens": 150, "temperature": 0}


@dataclass(frozen=True, slots=True)
class Scene:
    """One node with the demo model loaded, for the whole file. It takes one request at a time."""

    neuron: Daemon
    model: Path
    folder: Path


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Scene]:
    """A node that finds the demo model in its folder and has it loaded under another id."""
    folder = tmp_path_factory.mktemp("neuron")
    models = folder / "models"
    models.mkdir()
    model = models / f"{LOCAL}.gguf"
    model.symlink_to(demo_model)
    with workbench(folder) as bench:
        neuron = bench.neuron(
            model_dirs=[str(models)], admission={"max_in_flight": 1, "max_queue_depth": 0}
        )
        made = Scene(neuron, model, folder)
        assert load(made, DEMO).json() == {"status": "loaded"}
        yield made


@pytest.fixture
def demo(scene: Scene) -> Scene:
    """The node once its only seat is free."""
    eventually(lambda: in_flight(scene.neuron, DEMO) == 0)
    return scene


def get(scene: Scene, path: str) -> httpx.Response:
    """GET a path."""
    return scene.neuron.http.get(f"{scene.neuron.url}{path}")


def post(scene: Scene, path: str, value: Any) -> httpx.Response:
    """POST bytes, or a value as JSON."""
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return scene.neuron.http.post(f"{scene.neuron.url}{path}", content=content)


def load(scene: Scene, model: str, **more: Any) -> httpx.Response:
    """Order the demo model under this id. One thread does not wait for another."""
    spec = entry(model, scene.model, options={"threads": 1})
    return post(
        scene,
        LOAD,
        {"model_id": spec["id"], "source": spec["source"], "options": spec["options"]} | more,
    )


def told(
    answer: httpx.Response, status: int, code: str, kind: str = "invalid_request_error"
) -> Any:
    """Return the error of an answer, having held it against the envelope's contract."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in {429, 503})
    assert answer.json().keys() == {"error"}
    error = answer.json()["error"]
    assert error.keys() >= {"message", "type", "code", "param"}
    assert error["message"]
    assert (error["code"], error["type"]) == (code, kind)
    return error


# What it is and how it is


def test_discovery_says_what_the_machine_is(scene: Scene) -> None:
    """Placement is decided by it: every device with its memory, every harness by name."""
    found = get(scene, "/discovery").json()

    assert found.keys() == {
        "hostname", "os", "kernel", "boot_id", "version", "cuda_version", "driver_version",
        "cuda_unavailable_reason", "devices", "harnesses", "unusable_harnesses",
    }  # fmt: skip
    assert (found["version"], found["harnesses"]) == (__version__, ["llamacpp"])
    assert found["boot_id"]
    assert found["devices"]
    for number, device in enumerate(found["devices"]):
        assert device.keys() == {
            "index", "uuid", "kind", "name", "vram_total_mb", "compute_capability",
            "part_of", "ecc",
        }  # fmt: skip
        assert device["index"] == number
        assert device["vram_total_mb"] > 0


def test_the_version_names_this_life(scene: Scene) -> None:
    """A restarted daemon is another one, though it has the same address."""
    assert get(scene, "/version").json() == {
        "name": "neuron",
        "version": __version__,
        "boot_id": get(scene, "/discovery").json()["boot_id"],
    }


def test_health_tells_memory_and_work(demo: Scene) -> None:
    """Per device and per model, with ceilings and speeds once there is something to measure."""
    ask(demo.neuron, DEMO)
    health = get(demo, "/health").json()

    assert health.keys() == {
        "uptime_secs",
        "draining",
        "load_cycles",
        "devices",
        "activation",
        "models",
        "attached",
    }
    assert health["uptime_secs"] > 0
    assert health["draining"] is False
    assert health["activation"] == {"state": "ready", "pending": [], "completed": [], "failed": []}
    device = health["devices"][0]
    total = get(demo, "/discovery").json()["devices"][0]["vram_total_mb"]
    assert device["vram_used_mb"] + device["vram_free_mb"] == total
    assert device["vram_used_mb"] > 100
    assert device["vram_reserved_mb"] == 0
    work = next(one for one in health["models"] if one["id"] == DEMO)
    assert (work["in_flight"], work["queue_depth"]) == (0, 0)
    assert (work["max_in_flight"], work["max_queue_depth"]) == (1, 0)
    assert work["tok_s_prefill"] > 0
    assert work["tok_s_decode"] > 0


def test_models_are_a_bare_array_of_what_is_here(demo: Scene) -> None:
    """What is loaded with what it costs, what lies on disk with what it would cost."""
    before = time.time()
    ask(demo.neuron, DEMO)
    loaded, local = row(demo.neuron, DEMO), row(demo.neuron, LOCAL)

    assert isinstance(get(demo, "/models").json(), list)
    assert loaded is not None
    assert before - 1 < loaded.pop("last_used") < time.time() + 1
    assert 50 < loaded.pop("vram_used_mb") < 2 * loaded.pop("vram_required_mb")
    assert before - 600 < loaded.pop("loaded_at") < time.time()
    assert 0 < loaded.pop("load_secs") < 600
    assert loaded.pop("loaded_in_cycle") >= 1
    assert loaded == {
        "id": DEMO,
        "harness": "llamacpp",
        "status": "loaded",
        "devices": [0],
        "capabilities": ["chat", "completion"],
        "limit": {"context": CONTEXT},
        "in_flight": 0,
        "queue_depth": 0,
        "max_in_flight": 1,
        "servable": {"ok": True},
    }
    assert local is not None
    assert (local["status"], local["devices"]) == ("unloaded", [])
    assert local["vram_required_mb"] > 100
    assert "vram_used_mb" not in local
    assert "last_used" not in local


def test_metrics_are_those_of_what_is_loaded(demo: Scene) -> None:
    """Counters of work done, gauges of memory; a model that only lies on disk has neither."""
    ask(demo.neuron, DEMO)
    answer = get(demo, "/metrics")
    values = dict(
        line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#")
    )

    assert answer.headers["content-type"].startswith("text/plain; version=")
    for name in ("neuron_requests_total", "neuron_prompt_tokens_total",
                 "neuron_completion_tokens_total", "neuron_model_vram_used_mb"):  # fmt: skip
        assert float(values[f'{name}{{model="{DEMO}"}}']) > 0
    assert float(values[f'neuron_model_in_flight{{model="{DEMO}"}}']) == 0
    assert float(values['neuron_device_vram_used_mb{device="0"}']) > 0
    assert float(values["neuron_uptime_seconds"]) > 0
    assert f'"{LOCAL}"' not in answer.text


@pytest.mark.parametrize("name", ["org/demo", "org%2Fdemo"])
def test_the_endpoint_is_the_node_itself(scene: Scene, name: str) -> None:
    """As the caller reached it; engines are nobody's business."""
    assert get(scene, f"/models/{name}/endpoint").json() == {"url": scene.neuron.url}


@pytest.mark.parametrize("name", [LOCAL, "nobody/knows"])
def test_what_is_not_loaded_has_no_endpoint(scene: Scene, name: str) -> None:
    """Lying on disk is not serving."""
    told(get(scene, f"/models/{name}/endpoint"), 404, "model_not_found")


@pytest.mark.parametrize("name", ["org/demo", "org%2Fdemo", LOCAL])
def test_capabilities_come_from_the_files(scene: Scene, name: str) -> None:
    """Also of what is not loaded."""
    assert get(scene, f"/models/{name}/capabilities").json() == {
        "capabilities": ["chat", "completion"]
    }


def test_nothing_is_claimed_of_an_unknown_model(scene: Scene) -> None:
    """Absent evidence is a 404, not an empty list."""
    told(get(scene, "/models/nobody/knows/capabilities"), 404, "model_not_found")


# Inference


def test_a_chat_is_answered_whole(demo: Scene) -> None:
    """With text, finish and usage, and the node's own time to the first token."""
    answer = ask(demo.neuron, DEMO, temperature=0)
    body = answer.json()

    assert answer.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["model"] == DEMO
    (choice,) = body["choices"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] in {"stop", "length"}
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens"] <= 8
    assert float(answer.headers["x-neuron-ttft-ms"]) > 0


def test_a_completion_is_answered_whole(demo: Scene) -> None:
    """The old route, which editors still use."""
    answer = post(demo, "/v1/completions", {"model": DEMO, "prompt": "One, two,", "max_tokens": 4})
    body = answer.json()

    assert answer.status_code == 200
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"]
    assert body["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}])
def test_a_stream_ends_in_usage_although_nobody_asked(demo: Scene, options: dict[str, Any]) -> None:
    """Whoever stands in front must be able to count: empty choices, then [DONE], then nothing."""
    streamed = stream(demo.neuron, DEMO, **options)

    *chunks, last = streamed.payloads()
    assert streamed.frames[-1][1] == "data: [DONE]"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] > 0
    assert not any(chunk.get("usage") for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] in {"stop", "length"}
    assert streamed.text()


@pytest.mark.parametrize(
    ("stop", "reason"), [(["zzz", "cat"], "cat"), ("cat", "cat"), ("zzz", None), ("", None)]
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_a_stream_tells_the_stop_string_that_ended_it(
    demo: Scene, path: str, stop: Any, reason: str | None
) -> None:
    """And nothing else of the engine's insides; usage comes as ever."""
    prompt = {} if path == CHAT else {"prompt": "A"}
    body = {**say(DEMO), **prompt, "stop": stop, "max_tokens": 24}
    with demo.neuron.http.stream(
        "POST", f"{demo.neuron.url}{path}", json={**body, "stream": True, "grammar": CATS}
    ) as answer:
        told = [frame for _, frame in frames(answer)]
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in told if "{" in frame]
    (closing,) = [one for chunk in chunks for one in chunk["choices"] if one.get("finish_reason")]

    assert closing.get("stop_reason") == reason
    assert closing["finish_reason"] == "stop"
    assert "__verbose" not in "".join(told)
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    assert told[-1] == "data: [DONE]"


def test_a_completion_streams(demo: Scene) -> None:
    """Text by text, with the same end as a chat."""
    body = {"model": DEMO, "prompt": "One, two,", "max_tokens": 4, "stream": True}
    lines = post(demo, "/v1/completions", body).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]

    assert "".join(one["text"] for chunk in chunks for one in chunk["choices"])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    assert [line for line in lines if line][-1] == "data: [DONE]"


def test_a_second_id_serves_embeddings(scene: Scene) -> None:
    """The capability is the order's to give; each input has its own vector, in order."""
    assert load(scene, EMBEDDER, capabilities=["embedding"]).status_code == 200
    question = {"model": EMBEDDER, "input": ["a cat", "a cat", "the stock market"]}
    answer = post(scene, "/v1/embeddings", question).json()

    assert get(scene, f"/models/{EMBEDDER}/capabilities").json()["capabilities"] == [
        "chat",
        "completion",
        "embedding",
    ]
    assert answer["object"] == "list"
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    first, same, other = (one["embedding"] for one in answer["data"])
    assert len(first) == len(other) > 100
    assert first == pytest.approx(same, abs=1e-3)
    assert first != pytest.approx(other, abs=1e-3)
    assert answer["usage"]["prompt_tokens"] > 0
    assert post(scene, UNLOAD, {"model_id": EMBEDDER}).status_code == 200


def test_a_chat_model_says_that_it_does_not_embed(scene: Scene) -> None:
    """And what to do about it, in words of this node and not of its engine."""
    answer = post(scene, "/v1/embeddings", {"model": DEMO, "input": "a cat"})

    error = told(answer, 400, "wrong_modality")
    assert "--" not in error["message"]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_prompt_over_the_context_is_refused_before_the_answer_opens(
    demo: Scene, streamed: bool
) -> None:
    """In the words that clients look for when they decide to compact a conversation."""
    answer = post(demo, CHAT, say(DEMO, "word " * 2000, stream=streamed))

    error = told(answer, 400, "context_length_exceeded")
    assert f"maximum context length is {CONTEXT} tokens" in error["message"]
    assert error["max"] == CONTEXT
    assert error["prompt_len"] > 2000


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/tokenize"])
def test_an_unknown_model_is_a_404(scene: Scene, path: str) -> None:
    """On every route that takes one."""
    body = {"model": "nobody/knows", "prompt": "x", "input": "x"}

    assert told(post(scene, path, body), 404, "model_not_found")["param"] == "model"


@pytest.mark.parametrize(
    "body",
    [
        {"model": DEMO, "messages": "hello"},
        {"model": DEMO, "messages": [{"content": "x"}]},
        {"model": DEMO},
        {"model": DEMO, "messages": [{"role": "user", "content": "x"}], "temperature": "hot"},
    ],
)
def test_a_request_that_the_engine_refuses_is_the_clients_fault(
    demo: Scene, body: dict[str, Any]
) -> None:
    """A 400 in the envelope, and the seat is free again."""
    told(post(demo, CHAT, body), 400, "invalid_request_body")
    assert in_flight(demo.neuron, DEMO) == 0


# Counting


@pytest.mark.parametrize("name", [DEMO, LOCAL], ids=["loaded", "not loaded"])
@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "Say hello."}],
        [
            {"role": "system", "content": "You are terse."},
            {"role": "user", "content": "Grüße, 世界! \U0001f600"},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "<|im_start|>user"},
        ],
    ],
    ids=["short", "long"],
)
def test_a_chat_is_counted_to_the_token(
    demo: Scene, name: str, messages: list[dict[str, str]]
) -> None:
    """With the model's own template: what will be billed is what was promised."""
    counted = post(demo, "/tokenize", {"model": name, "messages": messages}).json()
    used = ask(demo.neuron, DEMO, messages=messages, max_tokens=1).json()["usage"]

    assert counted == {"model": name, "count": used["prompt_tokens"]}


def test_a_text_is_counted_to_the_token(demo: Scene) -> None:
    """The same for plain prompts."""
    prompt = "One, two, three and four."
    counted = post(demo, "/tokenize", {"model": LOCAL, "prompt": prompt}).json()
    body = {"model": DEMO, "prompt": prompt, "max_tokens": 1}
    used = post(demo, "/v1/completions", body).json()["usage"]

    assert counted["count"] == used["prompt_tokens"]


def test_nothing_to_count_is_refused(scene: Scene) -> None:
    """Zero would be a wrong answer."""
    told(post(scene, "/tokenize", {"model": LOCAL}), 400, "invalid_request_body")


# Under work


def test_control_routes_answer_at_once_while_tokens_are_made(demo: Scene) -> None:
    """They read what is in memory: a busy node is never taken for a dead one."""
    talk = Talk(demo.neuron, DEMO, **STORY)
    talk.under_way()
    took: dict[str, float] = {}
    for path in ("/health", "/models", "/discovery", "/version", "/metrics"):
        times = []
        for _ in range(7):
            began = time.perf_counter()
            assert get(demo, path).status_code == 200
            times.append(time.perf_counter() - began)
        took[path] = statistics.median(times)
    busy = in_flight(demo.neuron, DEMO)
    talk.end()

    assert busy == 1
    assert max(took.values()) < 0.05, took


def test_a_full_node_refuses_with_a_time_to_come_back(demo: Scene) -> None:
    """One seat, no queue: 503 rate_limit_error at once, counted, and the one inside goes on."""
    before = work(demo)["rejected"]
    talk = Talk(demo.neuron, DEMO, **{**STORY, "max_tokens": 60})
    talk.under_way()
    refused = [ask(demo.neuron, DEMO), post(demo, CHAT, say(DEMO, stream=True))]
    after = work(demo)["rejected"]
    inside = talk.end()

    for answer in refused:
        told(answer, 503, "rate_limit_exceeded", "rate_limit_error")
        assert 1 <= int(answer.headers["retry-after"]) <= 120
    assert after - before == 2
    assert inside.done
    assert ask(demo.neuron, DEMO).status_code == 200


def work(scene: Scene) -> Any:
    """Return what health says of the demo model."""
    return next(one for one in get(scene, "/health").json()["models"] if one["id"] == DEMO)


# Loading and unloading


def test_loading_what_is_loaded_is_done_at_once(scene: Scene) -> None:
    """The order is for a state, not for an act."""
    answer = load(scene, DEMO, wait=False)

    assert (answer.status_code, answer.json()) == (200, {"status": "loaded"})


def test_a_load_that_nobody_waits_for_is_on_its_way(scene: Scene) -> None:
    """202 with how far it is; until it is there its requests are told to come back."""
    answer = load(scene, "later", wait=False)
    asked = ask(scene.neuron, "later")
    eventually(lambda: status(scene.neuron, "later") == "loaded", within=30)
    gone = post(scene, UNLOAD, {"model_id": "later", "drain_secs": 0})

    assert answer.status_code == 202
    assert answer.json()["status"] == "loading"
    assert answer.json()["progress"]["phase"] in {"queued", "fetching", "loading"}
    told(asked, 503, "service_unavailable", "api_error")
    assert (gone.status_code, gone.json()) == (200, {"status": "unloaded"})
    assert row(scene.neuron, "later") is None


def test_a_load_that_does_not_fit_touches_nothing(demo: Scene) -> None:
    """409 with the arithmetic: per device, and who could leave."""
    answer = load(demo, "giant", vram_mb=10_000_000)

    error = told(answer, 409, "insufficient_vram", "api_error")
    assert error["needed_mb"] == 10_000_000
    assert 0 < error["free_mb"] < 10_000_000
    (device,) = [one for one in error["per_device"] if one["index"] == 0]
    assert device.keys() == {
        "index", "needed_mb", "free_mb", "reserved_mb", "held_mb", "total_mb",
    }  # fmt: skip
    assert error["evictable"] == [DEMO]
    assert status(demo.neuron, DEMO) == "loaded"
    assert get(demo, "/health").json()["devices"][0]["vram_reserved_mb"] == 0
    eventually(lambda: row(demo.neuron, "giant") is None)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (None, "not_found"),
        ("{folder}/nowhere.gguf", "not_found"),
        ("{folder}/cut.gguf", "corrupt"),
        ("{folder}/text.gguf", "unsupported_format"),
        ("ftp://somewhere/model.gguf", "bad_source"),
        ("", "bad_source"),
    ],
    ids=["no source", "no file", "cut", "not gguf", "scheme", "empty"],
)
def test_a_source_that_can_never_be_loaded_is_a_422(
    scene: Scene, source: str | None, kind: str
) -> None:
    """With its kind, before a byte reaches a device."""
    whole = scene.model.open("rb")
    with whole:
        (scene.folder / "cut.gguf").write_bytes(whole.read(3_000_000))
    (scene.folder / "text.gguf").write_text("not a model")
    named = source if source is None else source.format(folder=scene.folder)
    answer = post(scene, LOAD, {"model_id": "broken", "source": named})

    assert told(answer, 422, kind)["kind"] == kind


def test_a_failed_load_stays_listed_with_its_reason_and_can_be_tried_again(scene: Scene) -> None:
    """Whoever waited sees why; whoever mended it need not wait."""
    answer = post(scene, LOAD, {"model_id": "mended", "source": str(scene.folder / "gone.gguf")})
    failed = row(scene.neuron, "mended")
    again = load(scene, "mended")
    gone = post(scene, UNLOAD, {"model_id": "mended", "drain_secs": 0})

    assert answer.status_code == 422
    assert failed is not None
    assert (failed["status"], failed["error"]) == ("failed", answer.json()["error"]["message"])
    assert "vram_used_mb" not in failed
    assert again.json() == {"status": "loaded"}
    assert gone.status_code == 200


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"harness": "exllamav9"}, "unknown_harness", "harness"),
        ({"options": {"contxt": 512}}, "unsupported_parameter", "options.contxt"),
        ({"options": {"context": "long"}}, "unsupported_parameter", "options.context"),
        ({"devices": [7]}, "invalid_request_body", "devices"),
        ({"devices": [0], "tensor_parallel": 2}, "invalid_request_body", "devices"),
        ({"tensor_parallel": 0}, "invalid_request_body", "tensor_parallel"),
        ({"vram_mb": -1}, "invalid_request_body", "vram_mb"),
        ({"sorce": "x.gguf"}, "invalid_request_body", "sorce"),
        ({"evict": "org/demo"}, "invalid_request_body", "evict"),
        ({"waiting": {"count": -1, "oldest_secs": 0}}, "invalid_request_body", "waiting.count"),
        ({"model_id": ""}, "invalid_request_body", "model_id"),
    ],
)
def test_a_load_that_cannot_be_meant_is_refused(
    scene: Scene, more: dict[str, Any], code: str, param: str
) -> None:
    """A typo that was ignored would be another model than the one asked for."""
    assert told(load(scene, "typo", **more), 400, code)["param"] == param
    eventually(lambda: row(scene.neuron, "typo") is None)


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"", "malformed_json"), (b"{", "malformed_json"), (b"[]", "invalid_request_body")],
)
@pytest.mark.parametrize("path", [LOAD, UNLOAD, "/tokenize", CHAT, "/v1/embeddings"])
def test_a_body_that_cannot_be_read_is_refused(
    scene: Scene, path: str, body: bytes, code: str
) -> None:
    """In the same envelope everywhere."""
    told(post(scene, path, body), 400, code)


@pytest.mark.parametrize("model", ["nobody/knows", LOCAL])
def test_what_is_not_loaded_cannot_be_unloaded(scene: Scene, model: str) -> None:
    """Also when its files are here."""
    told(post(scene, UNLOAD, {"model_id": model}), 404, "model_not_found")


def test_an_unload_lets_the_one_inside_finish_and_nobody_else_in(scene: Scene) -> None:
    """Draining: the answer under way is whole, newcomers are told to come back, then it is gone."""
    assert load(scene, "leaving").status_code == 200
    talk = Talk(scene.neuron, "leaving", **{**STORY, "max_tokens": 80})
    talk.under_way()
    order = threading.Thread(
        target=lambda: post(scene, UNLOAD, {"model_id": "leaving", "drain_secs": 60})
    )
    order.start()
    eventually(lambda: status(scene.neuron, "leaving") == "unloading")
    refused = ask(scene.neuron, "leaving")
    inside = talk.end()
    order.join(30)

    told(refused, 503, "service_unavailable", "api_error")
    assert inside.done
    assert inside.errors() == []
    assert inside.payloads()[-1]["usage"]["completion_tokens"] == 80
    assert row(scene.neuron, "leaving") is None
    told(ask(scene.neuron, "leaving"), 404, "model_not_found")


# Events


class Events:
    """The event stream of a node, read in the background, each event with its moment."""

    def __init__(self, neuron: Daemon, last: str | None = None) -> None:
        self.seen: list[tuple[float, str, str, Any]] = []
        self._client = httpx.Client(timeout=30, trust_env=False)
        self._leave = threading.Event()
        headers = {} if last is None else {"last-event-id": last}
        self._thread = threading.Thread(
            target=self._read, args=(f"{neuron.url}/events", headers), daemon=True
        )
        self._thread.start()
        eventually(lambda: self.seen or last is not None)

    def models(self, model: str) -> list[tuple[float, Any]]:
        """Return the rows told of a model, each with its moment."""
        return [
            (at, value)
            for at, _, kind, value in list(self.seen)
            if kind == "model" and value["id"] == model
        ]

    def told(self, model: str, fits: Callable[[Any], bool], after: float = 0.0) -> float:
        """Return when a fitting row was first told of a model."""
        return eventually(
            lambda: [at for at, value in self.models(model) if at > after and fits(value)]
        )[0]

    def close(self) -> None:
        """Stop listening."""
        self._leave.set()
        self._thread.join(30)
        self._client.close()

    def _read(self, url: str, headers: dict[str, str]) -> None:
        with self._client.stream("GET", url, headers=headers) as response:
            for at, frame in frames(response):
                if self._leave.is_set():
                    return
                if not frame.startswith(":"):
                    fields = dict(line.split(": ", 1) for line in frame.splitlines())
                    self.seen.append(
                        (at, fields["id"], fields["event"], json.loads(fields["data"]))
                    )


@pytest.fixture
def events(demo: Scene) -> Iterator[Events]:
    """An open event stream."""
    made = Events(demo.neuron)
    yield made
    made.close()


def test_events_tell_the_life_of_a_model_and_resume(scene: Scene, events: Events) -> None:
    """A snapshot of everything, each step in order, and whoever was away gets what was missed."""
    _, first, kind, snapshot = events.seen[0]
    load(scene, "passing")
    events.told("passing", lambda one: one["status"] == "loaded")
    post(scene, UNLOAD, {"model_id": "passing", "drain_secs": 0})
    eventually(lambda: [one for one in events.seen if one[2] == "model_removed"])
    missed = [(number, kind) for _, number, kind, _ in list(events.seen)[1:]]
    resumed = Events(scene.neuron, first)
    eventually(lambda: len(resumed.seen) >= len(missed))
    resumed.close()

    assert kind == "snapshot"
    assert snapshot.keys() == {"boot_id", "health", "models"}
    assert {LOCAL, DEMO} <= {one["id"] for one in snapshot["models"]}
    steps = [value["status"] for _, value in events.models("passing")]
    assert list(dict.fromkeys(steps)) == ["queued", "loading", "loaded", "unloading"]
    assert [one[3] for one in events.seen if one[2] == "model_removed"] == [{"id": "passing"}]
    numbers = [int(number.rpartition("-")[2]) for number, _ in missed]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert [(number, kind) for _, number, kind, _ in resumed.seen[: len(missed)]] == missed


@pytest.mark.parametrize("last", ["", "nonsense", "00000000-7", "x-99999999999999999999"])
def test_an_event_id_of_another_life_begins_anew(scene: Scene, last: str) -> None:
    """Whoever cannot be resumed is told everything, never nothing."""
    listener = Events(scene.neuron, last)
    eventually(lambda: listener.seen)
    listener.close()

    assert listener.seen[0][2] == "snapshot"


def test_a_change_is_told_within_a_tenth_of_a_second(demo: Scene, events: Events) -> None:
    """A seat taken is known before its answer is long, a seat given back right after its end."""
    late = []
    for _ in range(3):
        events.seen.clear()
        streamed = stream(demo.neuron, DEMO, max_tokens=24)
        ended = time.monotonic()
        taken = events.told(DEMO, lambda one: one["in_flight"] == 1)
        free = events.told(DEMO, lambda one: one["in_flight"] == 0, after=taken)
        late.append(max(taken - streamed.frames[0][0], free - ended))

    assert statistics.median(late) < 0.1, late


def test_silence_is_filled_with_comments(scene: Scene) -> None:
    """So that a listener can tell a quiet node from a dead connection."""
    with scene.neuron.http.stream("GET", f"{scene.neuron.url}/events", timeout=10) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for at, (_, frame) in enumerate(frames(response)):
            if frame.startswith(":"):
                return
            if at > 20:
                raise NeverHappened("twenty events without a comment between them")


# Refusals of HTTP itself


@pytest.mark.parametrize(
    ("method", "path", "code", "status"),
    [
        ("GET", "/nope", "route_not_found", 404),
        ("POST", "/v1/responses/none", "route_not_found", 404),
        ("GET", "/models/load", "method_not_allowed", 405),
        ("PUT", CHAT, "method_not_allowed", 405),
        ("POST", "/health", "method_not_allowed", 405),
    ],
)
def test_a_wrong_turn_is_told_in_the_envelope(
    scene: Scene, method: str, path: str, code: str, status: int
) -> None:
    """The same as on a gateway, so that clients need one reader."""
    told(scene.neuron.http.request(method, f"{scene.neuron.url}{path}"), status, code)


def test_a_request_id_comes_back(scene: Scene) -> None:
    """The gateway's own, so that both logs can be read together."""
    ours = {"x-request-id": "req-0123"}
    answers = [
        scene.neuron.http.get(f"{scene.neuron.url}{path}", headers=ours)
        for path in ("/version", "/nope")
    ]

    assert {answer.headers["x-request-id"] for answer in answers} == {"req-0123"}
