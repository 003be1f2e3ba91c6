"""What operators see of requests: the events of the log, one of them whole, a load's progress."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cortex_gateway.capturing import MOST_BYTES
from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, fake_neuron
from tests.fleet.conversations import CHAT, say
from tests.fleet.processes import Daemon, eventually, workbench
from tests.libs.cortex_dialects.streams import HELLO, delta, frame

pytestmark = pytest.mark.fleet

MODEL = "org/a"
KEY = "sk-very-secret-0123456789"
MODELS = [{"id": MODEL, "harness": "candle", "vram_mb": 600}]


@pytest.fixture
def node() -> Iterator[FakeNeuron]:
    """A node that has the model."""
    made = FakeNeuron(sizes={MODEL: 600})
    made.hold(MODEL)
    with fake_neuron(made):
        yield made


@pytest.fixture
def cortex(tmp_path: Path, node: FakeNeuron) -> Iterator[Daemon]:
    """A gateway in front of it."""
    with workbench(tmp_path) as bench:
        made = bench.cortex(
            {"old": node.url},
            MODELS,
            {"gpt-4": MODEL},
            observation={"poll_secs": 0.05},
            timeouts={"hold_headers_secs": 0.1},
        )
        eventually(lambda: get(made, "/fleet")["nodes"][0]["models"])
        yield made


def get(cortex: Daemon, path: str) -> dict[str, Any]:
    """Return an answer of the gateway."""
    answer: dict[str, Any] = cortex.http.get(f"{cortex.url}{path}").json()
    return answer


def post(cortex: Daemon, path: str, body: Any, **headers: str) -> httpx.Response:
    """Ask the gateway."""
    return cortex.http.post(f"{cortex.url}{path}", json=body, headers=headers)


def test_the_last_events_are_told_as_they_were_logged(cortex: Daemon) -> None:
    """The same fields, in order, numbered."""
    post(cortex, CHAT, say(MODEL))
    cortex.last_event("request.done")

    told = get(cortex, "/fleet/logs")

    logged = cortex.log()
    assert told["events"] == logged[-len(told["events"]) :]
    assert told["events"][0]["event"] == "cortex.ready"
    assert told["next"] == len(told["events"])
    assert told["missed"] == 0


def test_events_of_one_request_and_of_one_node(cortex: Daemon, node: FakeNeuron) -> None:
    """Chosen by what they say of themselves."""
    for name in ("one", "two"):
        post(cortex, CHAT, say(MODEL), **{"x-request-id": name})
    eventually(lambda: len(cortex.events("request.done")) == 2)

    one = get(cortex, "/fleet/logs?request=one")["events"]
    old = get(cortex, "/fleet/logs?node=old")["events"]

    assert [event["request_id"] for event in one] == ["one"]
    assert {event["event"] for event in old} >= {"node.healthy", "request.done"}
    assert all(event["node"] == "old" for event in old)
    assert get(cortex, "/fleet/logs?node=nowhere")["events"] == []


def test_who_follows_is_answered_when_something_happens(cortex: Daemon) -> None:
    """Not before, and not much later; nothing twice."""
    begun = get(cortex, "/fleet/logs")["next"]
    heard: list[dict[str, Any]] = []

    def follow() -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            url = f"{cortex.url}/fleet/logs?request=mine&wait_secs=20&after={begun}"
            heard.append(client.get(url).json())

    follower = threading.Thread(target=follow)
    follower.start()
    post(cortex, CHAT, say(MODEL), **{"x-request-id": "other"})
    post(cortex, CHAT, say(MODEL), **{"x-request-id": "mine"})
    asked = time.monotonic()
    follower.join(10)

    assert time.monotonic() - asked < 2
    assert [one["request_id"] for one in heard[0]["events"]] == ["mine"]
    assert get(cortex, f"/fleet/logs?after={heard[0]['next']}")["events"] == []


@pytest.mark.parametrize("query", ["after=-1", "after=x", "wait_secs=nan", "after=1e99"])
def test_nonsense_is_refused(cortex: Daemon, query: str) -> None:
    """In words, with the parameter's name."""
    answer = cortex.http.get(f"{cortex.url}/fleet/logs?{query}")

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]


def test_nothing_is_captured_unless_it_was_asked_for(cortex: Daemon) -> None:
    """Bodies are kept nowhere."""
    post(cortex, CHAT, say(MODEL))

    assert get(cortex, "/fleet/capture") == {"state": "none"}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_one_request_is_captured_without_its_keys(
    cortex: Daemon, node: FakeNeuron, stream: bool
) -> None:
    """The first that is like the one described; body and answer as they were, keys nowhere."""
    post(cortex, "/fleet/capture", {"model": "gpt-4", "within_secs": 60})
    assert get(cortex, "/fleet/capture")["state"] == "armed"
    post(cortex, CHAT, say(MODEL))
    assert get(cortex, "/fleet/capture")["state"] == "armed"
    body = say("gpt-4", f"my key is {KEY}", stream=stream, metadata={"api_key": "hunter22"})
    if stream:
        node.reply = lambda handler: handler.stream(HELLO)
    headers = {"authorization": f"Bearer {KEY}", "cookie": "session=abcdefgh", "x-custom": "kept"}
    post(cortex, CHAT, body, **headers, **{"x-request-id": "wanted"})
    post(cortex, CHAT, say("gpt-4"), **{"x-request-id": "late"})

    told = eventually(lambda: (one := get(cortex, "/fleet/capture"))["state"] == "done" and one)

    assert (told["id"], told["path"], told["method"]) == ("wanted", CHAT, "POST")
    assert told["headers"]["x-custom"] == "kept"
    assert told["headers"]["authorization"] == told["headers"]["cookie"] == "[removed]"
    sent = json.loads(told["body"])
    assert sent["messages"][0]["content"] == "my key is [removed]"
    assert sent["metadata"]["api_key"] == "[removed]"
    assert "Hel" in told["answer"]
    assert ("[DONE]" in told["answer"]) is stream
    assert told["complete"] is True
    for secret in (KEY, "hunter22", "abcdefgh"):
        assert secret not in json.dumps(told)
        assert secret not in cortex.log_path.read_text()
        assert secret not in json.dumps(get(cortex, "/fleet/requests"))

    assert cortex.http.delete(f"{cortex.url}/fleet/capture").json() == {"state": "none"}


def test_a_capture_of_a_failure_has_what_the_client_was_told(cortex: Daemon) -> None:
    """By principal this time."""
    post(cortex, CHAT, say(MODEL))
    principal = get(cortex, "/fleet/requests")["ended"][0]["principal"]
    post(cortex, "/fleet/capture", {"principal": principal})
    post(cortex, CHAT, say("org/none"))

    told = get(cortex, "/fleet/capture")

    assert told["state"] == "done"
    assert json.loads(told["answer"])["error"]["code"] == "model_not_found"


def test_a_capture_is_bounded(cortex: Daemon, node: FakeNeuron) -> None:
    """So much of either side, and it says that there was more; the client gets all of it."""
    flood = frame(delta("x" * 60_000)) * 20 + frame(delta(None, finish_reason="stop"))
    node.reply = lambda handler: handler.stream(flood)
    post(cortex, "/fleet/capture", {})

    answer = post(cortex, CHAT, say(MODEL, "y" * 300_000, stream=True))

    told = get(cortex, "/fleet/capture")
    assert len(answer.content) == len(flood)
    assert len(told["answer"]) == len(told["body"]) == MOST_BYTES
    assert told["answer_bytes"] == len(flood)
    assert told["body_bytes"] > 300_000
    assert told["complete"] is False


BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/messages": {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 2000,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    },
    "/v1/responses": {"input": "hi"},
    "/v1/completions": {"prompt": "hi"},
}
THOUGHT = {
    CHAT: "reasoning_content",
    "/v1/messages": "thinking_delta",
    "/v1/responses": "response.reasoning",
}


@pytest.mark.parametrize("asked", [True, False], ids=["asked for", "not asked for"])
@pytest.mark.parametrize("path", BODIES)
def test_who_waits_for_a_load_sees_how_far_it_is(
    cortex: Daemon, node: FakeNeuron, path: str, asked: bool
) -> None:
    """As thoughts of its dialect, on demand; the answer is as it would have been."""

    def arriving(done: int) -> None:
        how = {"phase": "fetching", "done_bytes": done * 1_000_000, "total_bytes": 98_000_000}
        node.hold(MODEL, "loading", progress=how)

    arriving(12)
    eventually(lambda: get(cortex, "/fleet")["nodes"][0]["models"][0]["status"] == "loading")
    node.reply = lambda handler: handler.stream(HELLO)
    heard: list[str] = []
    headers = {"x-cortex-progress": "true"} if asked else {}
    body = {"model": "gpt-4", "stream": True, **BODIES[path]}

    def read() -> None:
        with (
            httpx.Client(timeout=30, trust_env=False) as client,
            client.stream("POST", f"{cortex.url}{path}", json=body, headers=headers) as answer,
        ):
            heard.extend(answer.iter_text())

    reader = threading.Thread(target=read)
    reader.start()
    eventually(lambda: heard)
    arriving(41)
    eventually(lambda: len(heard) >= 2)
    node.hold(MODEL)
    reader.join(10)

    text = "".join(heard)
    shown = asked and path in THOUGHT
    assert ("org/a on old: fetching 12.0 of 98.0 MB" in text) is shown
    assert ("org/a on old: fetching 41.0 of 98.0 MB" in text) is shown
    assert (THOUGHT.get(path, "\0") in text) is shown
    if path != "/v1/responses":  # which says everything again at its end
        assert text.count("fetching 12.0") == shown
    if path == CHAT:
        assert text.endswith("data: [DONE]\n\n")
        assert "Hel" in text
    done = cortex.last_event("request.done")
    assert done["ttft_ms"] >= done["waited_ms"] > 500
