"""Every failing path, on every route and in every dialect: what the client hears, and who else.

One event at its level with its fields, one count, one envelope; `Retry-After` if and only if trying
again can help; and nothing of the inside in the answer.
"""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
import pytest

from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, Handler, fake_neuron
from tests.fleet.processes import Daemon, Workbench, eventually, workbench
from tests.libs.cortex_dialects.streams import ROLE, delta, frame

pytestmark = pytest.mark.fleet

MODEL, GIANT = "org/a", "org/giant"
#: What no client may ever read.
SECRET = "Traceback /srv/engine.py line 7: tensor_of_secrets"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
TURNS = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": TURNS},
    "/v1/completions": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi"},
    MESSAGES: {"messages": TURNS, "max_tokens": 9},
    "/v1/responses": {"input": "hi"},
}
FACES = [(path, stream) for path in BODIES for stream in (False, True)]
FACES.remove(("/v1/embeddings", True))
NAMES = [f"{path.removeprefix('/v1/')}{', streamed' if stream else ''}" for path, stream in FACES]
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class Scene:
    """One gateway in front of one node that fails as it is told to."""

    node: FakeNeuron
    cortex: Daemon
    metrics_url: str

    def failures(self) -> dict[str, float]:
        """Return how many failures were counted, by code."""
        told: dict[str, float] = {}
        pattern = r'^cortex_(?:request|route)_errors_total\{.*code="([^"]*)".*\} (\S+)$'
        text = self.cortex.http.get(self.metrics_url).text
        for code, value in re.findall(pattern, text, re.MULTILINE):
            told[code] = told.get(code, 0.0) + float(value)
        return told

    def lines_of(self, name: str) -> list[dict[str, Any]]:
        """Return what the log says of a request."""
        return [line for line in self.cortex.log() if line.get("request_id") == name]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way to fail. `told` are fields that the event must have, and what they hold."""

    status: int
    code: str
    type: str = "api_error"
    again: bool = False
    model: str = MODEL
    body: bytes | None = None
    reply: Callable[[Handler], None] | None = None
    told: dict[str, Any] = field(default_factory=dict)


def says(status: int, **headers: str) -> Callable[[Handler], None]:
    """Return a node's refusal that is full of its inside."""
    return lambda handler: handler.send({"error": SECRET}, status, **headers)


def refuses(status: int, **error: Any) -> Callable[[Handler], None]:
    """Return a node's refusal in the words of the contract."""
    return lambda handler: handler.send({"error": error}, status)


def hang_up(handler: Handler) -> None:
    """Close without a word."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def say_nothing(_: Handler) -> None:
    """Stay silent for longer than the limit below."""
    time.sleep(1.2)


def talk_nonsense(handler: Handler) -> None:
    """Answer with something that is no answer, streamed or whole."""
    if handler.node.bodies[-1].get("stream"):
        handler.stream(b"data: {}\n\n")
        return
    raw = f"<html>{SECRET}</html>".encode()
    handler.send_response(200)
    handler.send_header("content-length", str(len(raw)))
    handler.end_headers()
    handler.wfile.write(raw)


TOO_LONG = {
    "message": "This model's maximum context length is 512 tokens.",
    "type": "invalid_request_error",
    "code": "context_length_exceeded",
}
ROWS = {
    "no JSON": Row(
        status=400, code="malformed_json", type="invalid_request_error", body=b"{", told={}
    ),
    "no model": Row(
        status=400, code="missing_model_field", type="invalid_request_error", body=b"{}"
    ),
    "nobody has the model": Row(
        status=404, code="model_not_found", type="invalid_request_error", model="org/none"
    ),
    "no device can hold it": Row(
        status=404, code="model_infeasible", type="invalid_request_error", model=GIANT
    ),
    "the node says the prompt is too long": Row(
        status=400,
        code="context_length_exceeded",
        type="invalid_request_error",
        reply=refuses(400, **TOO_LONG),
        told={"node": "old", "node_status": 400},
    ),
    "the node says the request is too large": Row(
        status=413,
        code="request_too_large",
        type="invalid_request_error",
        reply=refuses(413, message="too large"),
        told={"node": "old", "node_status": 413},
    ),
    "the node's queue is full": Row(
        status=503,
        code="rate_limit_exceeded",
        type="rate_limit_error",
        again=True,
        reply=refuses(503, message="full", type="rate_limit_error"),
        told={"node": "old", "node_status": 503},
    ),
    "the node cannot now": Row(
        status=503,
        code="service_unavailable",
        again=True,
        reply=says(503),
        told={"node": "old", "node_status": 503, "node_body": SECRET},
    ),
    "the node has a bug": Row(
        status=502,
        code="upstream_malformed_response",
        reply=says(500),
        told={"node": "old", "node_status": 500, "node_body": SECRET},
    ),
    "the node's engine is silent": Row(
        status=504,
        code="upstream_timeout",
        reply=says(504),
        told={"node": "old", "node_status": 504, "node_body": SECRET},
    ),
    "the node hangs up": Row(
        status=503,
        code="upstream_unreachable",
        again=True,
        reply=hang_up,
        told={"node": "old", "cause": "HungUp"},
    ),
    "the node never begins": Row(
        status=504,
        code="upstream_timeout",
        reply=say_nothing,
        told={"node": "old", "cause": "FirstByteTimeout"},
    ),
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The daemons."""
    node = FakeNeuron(total_mb=2000, sizes={MODEL: 600})
    node.hold(MODEL)
    models = [
        {"id": MODEL, "harness": "candle", "vram_mb": 600},
        {"id": GIANT, "harness": "candle", "vram_mb": 90_000},
        {"id": "org/cold", "harness": "candle", "vram_mb": 500},
    ]
    timeouts = {"hold_headers_secs": 5.0, "idle": 1.0, "first_byte": 0.6, "hold": 1.0}
    with fake_neuron(node), workbench(tmp_path_factory.mktemp("failures")) as bench:
        cortex = bench.cortex(
            {"old": node.url},
            models,
            observation={"poll_secs": 0.1},
            timeouts=timeouts,
            gateway={"request_max_mb": 1},
        )
        eventually(lambda: cortex.http.get(f"{cortex.url}/fleet").json()["nodes"][0]["models"])
        yield Scene(node, cortex, bench.metrics_url(cortex))


@pytest.fixture(autouse=True)
def _well_again(scene: Scene) -> Iterator[None]:
    """Let the node answer, so that no test leaves it in ill repute with the gateway."""
    yield
    scene.node.reply = None
    body = {"model": MODEL, **BODIES[CHAT]}
    eventually(lambda: scene.cortex.http.post(f"{scene.cortex.url}{CHAT}", json=body).is_success)


BUG = """
class Ranking:
    def score(self, candidate, request, now):
        return (1 / 0,)
"""


@pytest.fixture(scope="module")
def broken(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A gateway that crashes whenever it has to decide."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "buggy.py").write_text(BUG)
    models = [{"id": MODEL, "harness": "candle", "vram_mb": 600}]
    with pytest.MonkeyPatch.context() as patch, workbench(folder) as bench:
        path = [str(folder), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        patch.setenv("PYTHONPATH", os.pathsep.join(one for one in path if one))
        cortex = bench.cortex(
            {"old": scene.node.url},
            models,
            observation={"poll_secs": 0.1},
            routing={"policy": "buggy:Ranking"},
        )
        eventually(lambda: cortex.http.get(f"{cortex.url}/fleet").json()["nodes"][0]["models"])
        yield Scene(scene.node, cortex, bench.metrics_url(cortex))


def failed(scene: Scene, method: str, path: str, content: bytes, **headers: str) -> "Heard":
    """Ask for something that fails, and return all that came of it."""
    name = f"f-{next(_NUMBERS)}"
    before = scene.failures()
    said = {"x-request-id": name, "content-type": "application/json", **headers}
    answer = scene.cortex.http.request(
        method, f"{scene.cortex.url}{path}", content=content, headers=said
    )
    eventually(lambda: scene.lines_of(name))
    after = scene.failures()
    counted = {code: n - before.get(code, 0) for code, n in after.items()}
    return Heard(answer, scene.lines_of(name), {code: int(n) for code, n in counted.items() if n})


@dataclass(frozen=True, slots=True)
class Heard:
    """What the client, the operator and the metrics heard."""

    answer: httpx.Response
    lines: list[dict[str, Any]]
    counted: dict[str, int]

    def speaks_once(self, event: str, level: str, code: str) -> dict[str, Any]:
        """Check that there is one event and one count, and return the event."""
        assert [(one["event"], one["level"]) for one in self.lines] == [(event, level)]
        assert self.counted == {code: 1}
        assert self.lines[0]["code"] == code
        assert self.lines[0]["status"] == self.answer.status_code
        assert self.lines[0]["error"]
        return self.lines[0]

    def leaks_nothing(self, scene: Scene) -> None:
        """Check that the answer names nothing of the inside."""
        text = self.answer.text + str(self.answer.headers)
        port = scene.node.url.rpartition(":")[2]
        for inside in (SECRET, "Traceback", "127.0.0.1", port, "/srv/", "cortex_gateway"):
            assert inside not in text


def check_envelope(answer: httpx.Response, row: Row, *, anthropic: bool) -> None:
    """Check the error body, its request's name, and when to ask again."""
    body = answer.json()
    assert answer.status_code == row.status
    assert answer.headers["content-type"] == "application/json"
    assert ("retry-after" in answer.headers) is row.again
    if row.again:
        assert 1 <= int(answer.headers["retry-after"]) <= 600
    error = body["error"]
    assert error["message"]
    if anthropic:
        assert set(body) == {"type", "error", "request_id"}
        assert body["type"] == "error"
        assert error["type"] == ANTHROPIC_TYPES[row.status]
        assert body["request_id"] == answer.headers["x-request-id"] == answer.headers["request-id"]
    else:
        assert (error["type"], error["code"]) == (row.type, row.code)
        assert "param" in error


@pytest.mark.parametrize(("path", "stream"), FACES, ids=NAMES)
@pytest.mark.parametrize("name", ROWS)
def test_an_answer_that_never_began(scene: Scene, name: str, path: str, stream: bool) -> None:
    """A clean status in the client's dialect, whether it asked for a stream or not."""
    row = ROWS[name]
    scene.node.reply = row.reply
    asked = {"model": row.model, "stream": stream, **BODIES[path]}
    heard = failed(scene, "POST", path, row.body or json.dumps(asked).encode())

    check_envelope(heard.answer, row, anthropic=path == MESSAGES)
    heard.leaks_nothing(scene)
    line = heard.speaks_once("request.failed", "warning", row.code)
    assert line["route"] == path
    assert line["dialect"] in {"openai", "anthropic", "responses"}
    assert len(line["principal"]) == 16
    for key, value in row.told.items():
        assert str(value) in str(line[key])
    if "node" in row.told:
        assert line["url"].startswith(scene.node.url)
        assert line["model"] == MODEL


@pytest.mark.parametrize(("path", "stream"), FACES, ids=NAMES)
def test_an_answer_that_is_none(scene: Scene, path: str, stream: bool) -> None:
    """Bytes that are no answer are never passed off as one; the log has how they begin."""
    scene.node.reply = talk_nonsense
    asked = {"model": MODEL, "stream": stream, **BODIES[path]}
    heard = failed(scene, "POST", path, json.dumps(asked).encode())

    code = "upstream_unreachable" if stream else "upstream_malformed_response"
    (line,) = heard.lines
    assert (line["event"], line["level"], line["code"]) == ("request.failed", "warning", code)
    assert heard.counted == {code: 1}
    heard.leaks_nothing(scene)
    if not stream:
        row = Row(status=502, code=code)
        check_envelope(heard.answer, row, anthropic=path == MESSAGES)
        assert SECRET in line["node_body"]


@pytest.mark.parametrize("how", ["cut", "silent", "error event"])
@pytest.mark.parametrize("path", [path for path, stream in FACES if stream])
def test_an_answer_that_breaks_off(scene: Scene, path: str, how: str) -> None:
    """An error event of the dialect and the end; one event, one count; the status was 200."""

    def reply(handler: Handler) -> None:
        begun: tuple[bytes, ...] = (frame(ROLE), frame(delta("Hel")))
        if path == "/v1/completions":
            begun = (frame({"choices": [{"index": 0, "text": "Hel", "finish_reason": None}]}),)
        if how == "error event":
            error = {"message": "the engine lost its device", "type": "api_error", "code": "lost"}
            handler.stream(*begun, frame({"error": error}))
            return
        handler.stream(*begun, cut=True)
        if how == "silent":
            time.sleep(1.5)  # longer than the idle limit above

    scene.node.reply = reply
    asked = {"model": MODEL, "stream": True, **BODIES[path]}
    heard = failed(scene, "POST", path, json.dumps(asked).encode())

    code = {"cut": "upstream_unreachable", "silent": "upstream_timeout", "error event": "lost"}[how]
    assert heard.answer.status_code == 200
    assert '"error"' in heard.answer.text
    for normal in ("[DONE]", "message_stop", "response.completed"):
        assert normal not in heard.answer.text
    heard.leaks_nothing(scene)
    (line,) = heard.lines
    assert (line["event"], line["level"], line["code"]) == ("request.failed", "warning", code)
    assert (line["node"], line["model"]) == ("old", MODEL)
    assert line["error"]
    assert heard.counted == {code: 1}


BIG = b'"' + b"x" * (1024 * 1024 + 10) + b'"'
REFUSALS: dict[str, tuple[str, str, bytes, Row]] = {
    "no such route": (
        "GET",
        "/v1/nothing",
        b"",
        Row(status=404, code="route_not_found", type="invalid_request_error"),
    ),
    "a method it does not take": (
        "PUT",
        "/v1/models",
        b"",
        Row(status=405, code="method_not_allowed", type="invalid_request_error"),
    ),
    "inference asked by GET": (
        "GET",
        CHAT,
        b"",
        Row(status=405, code="method_not_allowed", type="invalid_request_error"),
    ),
    "no such model": (
        "GET",
        "/v1/models/org/none",
        b"",
        Row(status=404, code="model_not_found", type="invalid_request_error"),
    ),
    "an explanation of nothing": (
        "GET",
        "/fleet/explain",
        b"",
        Row(status=400, code="invalid_request_body", type="invalid_request_error"),
    ),
    "a load of nothing": (
        "POST",
        "/fleet/models/load",
        b"{}",
        Row(status=400, code="invalid_request_body", type="invalid_request_error"),
    ),
    "a load that is no JSON": (
        "POST",
        "/fleet/models/load",
        b"{",
        Row(status=400, code="malformed_json", type="invalid_request_error"),
    ),
    "a load on no node": (
        "POST",
        "/fleet/models/load",
        b'{"model": "org/a", "node": "nowhere"}',
        Row(status=400, code="invalid_request_body", type="invalid_request_error"),
    ),
    "an unload of what is not there": (
        "POST",
        "/fleet/models/unload",
        b'{"model": "org/giant"}',
        Row(status=404, code="model_not_found", type="invalid_request_error"),
    ),
    "a cancel of nobody": (
        "DELETE",
        "/fleet/requests/nobody",
        b"",
        Row(status=404, code="request_not_found", type="invalid_request_error"),
    ),
    "a count of no JSON": (
        "POST",
        "/v1/messages/count_tokens",
        b"{",
        Row(status=400, code="malformed_json", type="invalid_request_error"),
    ),
    "a count for no model": (
        "POST",
        "/v1/responses/input_tokens",
        b'{"model": "org/none", "input": "hi"}',
        Row(status=404, code="model_not_found", type="invalid_request_error"),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_every_other_route_speaks_once_too(scene: Scene, name: str) -> None:
    """The same envelope, one event, one count."""
    method, path, content, row = REFUSALS[name]
    heard = failed(scene, method, path, content)

    check_envelope(heard.answer, row, anthropic=path.startswith(MESSAGES))
    heard.leaks_nothing(scene)
    line = heard.speaks_once("request.refused", "warning", row.code)
    assert (line["method"], line["path"]) == (method, path)
    assert line["route"] == "unknown" or line["route"].startswith("/")


@pytest.mark.parametrize("path", BODIES)
def test_a_body_beyond_the_limit(scene: Scene, path: str) -> None:
    """413 before anybody reads it, in the client's envelope; one event, one count."""
    heard = failed(scene, "POST", path, BIG)

    row = Row(status=413, code="request_too_large", type="invalid_request_error")
    check_envelope(heard.answer, row, anthropic=path == MESSAGES)
    heard.speaks_once("request.refused", "warning", row.code)


def test_a_head_that_cannot_be_read(scene: Scene) -> None:
    """400 in an envelope, one event, one count, and the connection is closed."""
    before = scene.failures()
    host, port = scene.cortex.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))

    assert answer.startswith(b"HTTP/1.1 400 ")
    name = re.search(rb"x-request-id: (\S+)", answer)
    assert name is not None
    lines = eventually(lambda: scene.lines_of(name[1].decode()))
    assert [one["event"] for one in lines] == ["request.refused"]
    after = scene.failures()
    assert sum(after.values()) == sum(before.values()) + 1


def test_a_replica_that_is_replaced_is_told_of_once(scene: Scene, tmp_path: Any) -> None:
    """The request is well; the failure that its client never hears of has an event of its own."""
    bad = FakeNeuron(sizes={MODEL: 600}, reply=says(503))
    bad.hold(MODEL)
    models = [{"id": MODEL, "harness": "candle", "vram_mb": 600}]
    with fake_neuron(bad), workbench(tmp_path) as bench:
        cortex = bench.cortex(
            {"bad": bad.url, "good": scene.node.url}, models, observation={"poll_secs": 0.1}
        )
        eventually(
            lambda: all(
                one["models"] for one in cortex.http.get(f"{cortex.url}/fleet").json()["nodes"]
            )
        )
        answer = cortex.http.post(f"{cortex.url}{CHAT}", json={"model": MODEL, **BODIES[CHAT]})
        assert answer.headers["x-cortex-node"] == "good"
        done = cortex.last_event("request.done")

        (line,) = cortex.events("replica.failed")
        assert (line["level"], line["node"], line["model"]) == ("warning", "bad", MODEL)
        assert line["request_id"] == done["request_id"]
        assert (line["node_status"], done["attempts"]) == (503, 2)
        assert SECRET in line["node_body"]
        assert cortex.events("request.failed") == []


@pytest.mark.parametrize(("path", "stream"), FACES, ids=NAMES)
def test_a_bug_of_ours(broken: Scene, path: str, stream: bool) -> None:
    """500 in the client's envelope; the trace is in the one event, at the level of an error."""
    asked = {"model": MODEL, "stream": stream, **BODIES[path]}
    heard = failed(broken, "POST", path, json.dumps(asked).encode())

    row = Row(status=500, code="internal_error", type="api_error")
    check_envelope(heard.answer, row, anthropic=path == MESSAGES)
    heard.leaks_nothing(broken)
    line = heard.speaks_once("request.failed", "error", "internal_error")
    assert "ZeroDivisionError" in line["exception"]


def test_a_bug_of_ours_elsewhere(broken: Scene) -> None:
    """As above, on a route that is not for inference."""
    heard = failed(broken, "GET", f"/fleet/explain?model={MODEL}", b"")

    check_envelope(
        heard.answer, Row(status=500, code="internal_error", type="api_error"), anthropic=False
    )
    heard.leaks_nothing(broken)
    (line,) = heard.lines
    assert (line["event"], line["level"], line["route"]) == (
        "request.crashed",
        "error",
        "/fleet/explain",
    )
    assert "ZeroDivisionError" in line["exception"]
    assert heard.counted == {"internal_error": 1}


COLD = "org/cold"
LOADS = {
    "the files can never be loaded": (
        {"error": {"code": "unsupported_arch", "message": SECRET}},
        422,
        Row(status=404, code="model_infeasible", type="invalid_request_error"),
    ),
    "the files cannot be fetched now": (
        {"error": {"code": "fetch_failed", "message": SECRET}},
        422,
        Row(status=503, code="service_unavailable", again=True),
    ),
    "the node does not understand": (
        {"error": SECRET},
        400,
        Row(status=404, code="model_infeasible", type="invalid_request_error"),
    ),
    "the engine does not start": (
        {"error": SECRET},
        500,
        Row(status=503, code="service_unavailable", again=True),
    ),
}


@pytest.mark.parametrize(("path", "stream"), [(CHAT, True), (MESSAGES, False)])
@pytest.mark.parametrize("name", LOADS)
def test_a_load_that_fails(scene: Scene, name: str, path: str, stream: bool) -> None:
    """One event for the load, which many may wait for, and one for each who did."""
    said, status, row = LOADS[name]
    before = len(scene.cortex.events("model.load_refused"))
    scene.node.load_reply = lambda handler: handler.send(said, status)
    asked = {"model": COLD, "stream": stream, **BODIES[path]}
    heard = failed(scene, "POST", path, json.dumps(asked).encode())
    scene.node.load_reply = None

    check_envelope(heard.answer, row, anthropic=path == MESSAGES)
    heard.leaks_nothing(scene)
    line = heard.speaks_once("request.failed", "warning", row.code)
    assert line["model"] == COLD
    assert line["attempts"] == 0
    (refused,) = scene.cortex.events("model.load_refused")[before:]
    assert (refused["level"], refused["node"], refused["model"]) == ("warning", "old", COLD)
    assert refused["status"] == status
    assert SECRET in refused["error"]


def test_a_gateway_that_leaves(bench: Workbench) -> None:
    """503 with a code of its own for newcomers; one event, one count, no word of why."""
    go_on = threading.Event()

    def wait(handler: Handler) -> None:
        go_on.wait(10)
        handler.send({"choices": []})

    node = FakeNeuron(sizes={MODEL: 600}, reply=wait)
    node.hold(MODEL)
    models = [{"id": MODEL, "harness": "candle", "vram_mb": 600}]
    body = {"model": MODEL, **BODIES[CHAT]}
    with fake_neuron(node):
        cortex = bench.cortex({"old": node.url}, models, observation={"poll_secs": 0.1})
        staying = httpx.Client(timeout=30, trust_env=False)
        staying.get(f"{cortex.url}/health")
        asking = threading.Thread(
            target=cortex.http.post, args=(f"{cortex.url}{CHAT}",), kwargs={"json": body}
        )
        asking.start()
        eventually(lambda: "infer org/a" in node.asked)
        scene = Scene(node, cortex, bench.metrics_url(cortex))
        counts = httpx.Client(timeout=30, trust_env=False)
        counts.get(scene.metrics_url)
        cortex.signal(signal.SIGTERM)
        eventually(lambda: staying.get(f"{cortex.url}/ready").status_code == 503)
        answer = staying.post(f"{cortex.url}{CHAT}", json=body)
        metrics = counts.get(scene.metrics_url).text
        go_on.set()
        asking.join(10)
        staying.close()
        counts.close()

    row = Row(status=503, code="shutting_down", again=True)
    check_envelope(answer, row, anthropic=False)
    (line,) = scene.lines_of(answer.headers["x-request-id"])
    assert (line["event"], line["level"]) == ("request.failed", "warning")
    assert re.search(r'cortex_request_errors_total\{code="shutting_down".*\} 1\.0', metrics)
