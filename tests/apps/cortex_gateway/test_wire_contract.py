"""What a client sees of a gateway: every route's shape, every refusal's envelope."""

import http.client
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from cortex_core import __version__
from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, Handler, fake_neuron
from tests.fleet.conversations import CHAT, frames, say
from tests.fleet.processes import Daemon, Workbench, eventually, workbench

pytestmark = pytest.mark.fleet

MODELS: list[dict[str, Any]] = [
    {
        "id": "org/family/a",
        "harness": "candle",
        "vram_mb": 600,
        "capabilities": ["chat"],
        "limit": {"context": 4096, "output": 512},
    },
    {"id": "org/cold", "harness": "candle", "vram_mb": 100},
    {"id": "org/giant", "harness": "candle", "vram_mb": 9000},
    {"id": "bare", "harness": "candle"},
    {"id": "org/gguf", "source": "hf:nobody/nothing"},
]
ALIASES = {"gpt-4": "org/family/a"}
HOT = "org/family/a"
BODY_LIMIT = 1024 * 1024
FLEET_KEYS = {"status", "version", "now", "nodes", "models", "requests", "catalogue"}


@dataclass(frozen=True, slots=True)
class Scene:
    """One gateway in front of one old node, for the whole file."""

    node: FakeNeuron
    cortex: Daemon
    metrics_url: str


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """An old node that holds one model, and a gateway that polls it often."""
    node = FakeNeuron(total_mb=2000, sizes={HOT: 600})
    node.hold(HOT)
    with fake_neuron(node), workbench(tmp_path_factory.mktemp("gateway")) as bench:
        cortex = in_front_of(bench, node.url)
        yield Scene(node, cortex, bench.metrics_url(cortex))


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A small gateway whose only node has just died."""
    with workbench(tmp_path_factory.mktemp("lonely")) as bench:
        node = bench.neuron()
        cortex = in_front_of(bench, node.url, gateway={"request_max_mb": 1})
        node.kill()
        eventually(lambda: not get(cortex, "/health").json()["nodes"]["healthy"])
        yield cortex


def in_front_of(bench: Workbench, url: str, **settings: Any) -> Daemon:
    """Start a gateway that notices everything fast."""
    observation = {"poll_secs": 0.1, "timeout_secs": 1, "misses": 1}
    timeouts = {"connect": 0.5, "hold": 0.3}
    return bench.cortex(
        {"old": url}, MODELS, ALIASES, observation=observation, timeouts=timeouts, **settings
    )


def get(daemon: Daemon, path: str, **headers: str) -> httpx.Response:
    """GET a path."""
    return daemon.http.get(f"{daemon.url}{path}", headers=headers)


def post(daemon: Daemon, path: str, content: bytes, **headers: str) -> httpx.Response:
    """POST raw bytes to a path."""
    return daemon.http.post(
        f"{daemon.url}{path}",
        content=content,
        headers={"content-type": "application/json"} | headers,
    )


def post_json(daemon: Daemon, path: str, value: Any) -> httpx.Response:
    """POST a value as JSON."""
    return post(daemon, path, json.dumps(value).encode())


def told(
    answer: httpx.Response, status: int, code: str, kind: str = "invalid_request_error"
) -> Any:
    """Return the error of an answer, having held it against the envelope's contract."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert ("retry-after" in answer.headers) == (status in {429, 503})
    if "retry-after" in answer.headers:
        assert int(answer.headers["retry-after"]) >= 1
    assert answer.json().keys() == {"error"}
    error = answer.json()["error"]
    assert error.keys() >= {"message", "type", "code", "param"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert (error["code"], error["type"]) == (code, kind)
    return error


def listed(scene: Scene, model: str) -> dict[str, Any]:
    """Return the row of a model."""
    rows: list[dict[str, Any]] = get(scene.cortex, "/v1/models").json()["data"]
    return next(row for row in rows if row["id"] == model)


# What is there


def test_a_loaded_model_is_listed_with_all_that_is_known(scene: Scene) -> None:
    """Clients size their prompts and operators find their memory by this row."""
    listing = get(scene.cortex, "/v1/models").json()

    assert listing.keys() == {"object", "data"}
    assert listing["object"] == "list"
    row = listed(scene, HOT)
    assert isinstance(row.pop("created"), int)
    assert row == {
        "id": HOT,
        "object": "model",
        "owned_by": "org",
        "loaded": True,
        "feasible_on": ["old"],
        "locations": [{"node": "old", "status": "loaded", "vram_mb": 600}],
        "aliases": ["gpt-4"],
        "capabilities": ["chat"],
        "limit": {"context": 4096, "output": 512},
        "max_model_len": 4096,
    }


def test_what_is_not_known_is_absent(scene: Scene) -> None:
    """A zero or a null would be taken for a fact."""
    row = listed(scene, "bare")

    assert row.keys() == {
        "id", "object", "created", "owned_by", "loaded", "feasible_on", "locations", "aliases"
    }  # fmt: skip
    assert (row["loaded"], row["locations"], row["aliases"]) == (False, [], [])


def test_a_model_that_fits_nowhere_is_listed_as_such(scene: Scene) -> None:
    """Operators see why nothing happens."""
    assert listed(scene, "org/giant")["feasible_on"] == []


def test_an_alias_is_a_row_of_its_own(scene: Scene) -> None:
    """Clients that check the list before they ask find the name they were given."""
    alias = listed(scene, "gpt-4")

    assert alias["alias_of"] == HOT
    assert alias["loaded"] is True


@pytest.mark.parametrize("path", ["org/family/a", "org%2Ffamily%2Fa", "org%2ffamily/a", "gpt-4"])
def test_one_model_is_found_by_its_id(scene: Scene, path: str) -> None:
    """Slashes come plain from people and escaped from SDKs."""
    answer = get(scene.cortex, f"/v1/models/{path}")

    assert answer.status_code == 200
    assert answer.json() in get(scene.cortex, "/v1/models").json()["data"]
    assert answer.json()["id"] in {HOT, "gpt-4"}


def test_health_and_readiness_say_how_the_fleet_is(scene: Scene) -> None:
    """A whole fleet is ok, and that makes the gateway ready."""
    health = {
        "status": "ok",
        "nodes": {"healthy": 1, "total": 1},
        "missing": [],
        "unservable": [],
    }

    assert get(scene.cortex, "/health").json() == health
    assert get(scene.cortex, "/ready").json() == {"ready": True, **health}


def test_a_fleet_without_nodes_is_alive_but_not_ready(lonely: Daemon) -> None:
    """Liveness probes must not restart a gateway for its nodes; load balancers must leave it."""
    health, ready = get(lonely, "/health"), get(lonely, "/ready")

    assert (health.status_code, ready.status_code) == (200, 503)
    assert health.json()["status"] == "degraded"
    assert health.json()["missing"] == ["old"]
    assert ready.json()["ready"] is False
    assert int(ready.headers["retry-after"]) >= 1


def test_a_resident_model_that_cannot_serve_impairs_the_fleet(scene: Scene) -> None:
    """A green light over a broken model is the lie that operators hate most."""
    scene.node.hold("bare", servable={"ok": False, "reason": "cuda_fault"})
    health = eventually(lambda: impaired(scene))
    scene.node.resident.pop("bare")

    assert health["unservable"] == [{"node": "old", "model": "bare", "reason": "cuda_fault"}]
    eventually(lambda: get(scene.cortex, "/health").json()["status"] == "ok")


def impaired(scene: Scene) -> Any:
    """Return the health once it is impaired."""
    health = get(scene.cortex, "/health").json()
    return health if health["status"] == "impaired" else None


def test_the_version_is_that_of_the_package(scene: Scene) -> None:
    """Bug reports begin with it."""
    assert get(scene.cortex, "/version").json() == {"name": "cortex", "version": __version__}


def test_the_fleet_is_shown_whole(scene: Scene) -> None:
    """Nodes with devices and models, the catalogue, and what is under way."""
    fleet = get(scene.cortex, "/fleet").json()

    assert fleet.keys() == FLEET_KEYS
    assert fleet["requests"] == {"in_flight": 0, "waiting": 0}
    assert fleet["models"] == get(scene.cortex, "/v1/models").json()["data"]
    (node,) = fleet["nodes"]
    assert (node["name"], node["healthy"], node["endpoint"]) == ("old", True, scene.node.url)
    assert node["devices"] == [
        {
            "index": 0,
            "name": "GPU",
            "kind": "cuda",
            "vram_total_mb": 2000,
            "compute_capability": "8.9",
            "vram_used_mb": 600,
            "vram_free_mb": 1400,
        }
    ]
    assert [row["id"] for row in node["models"]] == [HOT]


# Events


class Events:
    """An open event stream and the frames that came so far."""

    def __init__(self, response: httpx.Response) -> None:
        self._frames = frames(response)

    def next(self) -> tuple[str, str, Any]:
        """Return id, kind and data of the next event, over comments."""
        for _, frame in self._frames:
            if not frame.startswith(":"):
                fields = dict(line.split(": ", 1) for line in frame.splitlines())
                return fields["id"], fields["event"], json.loads(fields["data"])
        raise AssertionError("the stream ended")


def test_events_begin_with_a_snapshot_tell_changes_soon_and_resume(scene: Scene) -> None:
    """A dashboard that was away for a moment gets exactly what it missed."""
    url = f"{scene.cortex.url}/fleet/events"
    client = scene.cortex.http
    with client.stream("GET", url, timeout=5) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = Events(response)
        first, kind, snapshot = events.next()
        scene.node.hold("bare")
        changed, models = first, list[str]()
        while "bare" not in models:
            changed, what, node = events.next()
            assert what == "node"
            models = [row["id"] for row in node["models"]]
    scene.node.resident.pop("bare")

    assert (kind, snapshot.keys()) == ("snapshot", FLEET_KEYS)
    with client.stream("GET", url, headers={"last-event-id": first}, timeout=5) as response:
        resumed = Events(response)
        again = [resumed.next() for _ in range(numbered(changed) - numbered(first))]
    assert [numbered(one) for one, _, _ in again] == list(
        range(numbered(first) + 1, numbered(changed) + 1)
    )
    assert all(what == "node" for _, what, _ in again)


def numbered(event_id: str) -> int:
    """Return the number in an event id."""
    return int(event_id.rpartition("-")[2])


@pytest.mark.parametrize("last", ["", "nonsense", "other-life-3", "x-99999999999999999999"])
def test_an_event_id_of_another_life_begins_anew(scene: Scene, last: str) -> None:
    """Whoever cannot be resumed is told everything, never nothing."""
    url = f"{scene.cortex.url}/fleet/events"
    with scene.cortex.http.stream(
        "GET", url, headers={"last-event-id": last}, timeout=5
    ) as response:
        _, kind, _ = Events(response).next()

    assert kind == "snapshot"


# Metrics


def series(scene: Scene) -> list[str]:
    """Return the lines of the exposition that carry a value."""
    answer = scene.cortex.http.get(scene.metrics_url)
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return [line for line in answer.text.splitlines() if line and not line.startswith("#")]


def test_metrics_are_histograms_and_name_only_known_models(scene: Scene) -> None:
    """Summaries cannot be added up, and a client's invention must not become a series."""
    post_json(scene.cortex, CHAT, say(HOT))
    post_json(scene.cortex, CHAT, say("gpt-4"))
    post_json(scene.cortex, CHAT, say("invented-by-a-client"))
    post_json(scene.cortex, CHAT, say("org/giant"))
    lines = series(scene)

    assert not [line for line in lines if 'quantile="' in line]
    buckets = [line for line in lines if line.startswith("cortex_request_duration_seconds_bucket{")]
    assert any('le="1200.0"' in line for line in buckets)
    models = {name for line in lines for name in re.findall(r'model="([^"]*)"', line)}
    assert models <= {row["id"] for row in MODELS} | {"unknown"}
    assert {HOT, "unknown"} <= models
    codes = {code for line in lines for code in re.findall(r'code="([^"]*)"', line)}
    assert {"model_not_found", "model_infeasible"} <= codes


def test_tasks_are_counted_where_they_live(scene: Scene) -> None:
    """A task that nobody ends is a leak long before memory shows it; requests leave none."""

    def tasks() -> float:
        (line,) = [one for one in series(scene) if one.startswith("cortex_tasks ")]
        return float(line.split()[1])

    before = tasks()
    for _ in range(5):
        post_json(scene.cortex, CHAT, say(HOT))

    assert before >= 1
    eventually(lambda: tasks() <= before)


def test_the_series_of_a_vanished_model_are_removed(scene: Scene) -> None:
    """A gauge that nobody sets any more would be a memory, shown as a fact."""

    def shown() -> bool:
        wanted = 'cortex_model_in_flight{model="passing",node="old"}'
        return any(line.startswith(wanted) for line in series(scene))

    scene.node.hold("passing")
    eventually(shown)
    scene.node.resident.pop("passing")
    eventually(lambda: not shown())

    assert not [line for line in series(scene) if "cortex_model_" in line and "passing" in line]


def test_metrics_are_not_on_the_api_port(scene: Scene) -> None:
    """What is public to clients and what is not are two listeners."""
    told(get(scene.cortex, "/metrics"), 404, "route_not_found")
    told(scene.cortex.http.get(scene.metrics_url.replace("/metrics", "/v1/models")), 404,
         "route_not_found")  # fmt: skip


# Inference


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8", ""],
)
def test_json_is_taken_under_all_its_names(scene: Scene, path: str, content_type: str) -> None:
    """Many clients add a charset; some say nothing at all."""
    answer = post(
        scene.cortex, path, json.dumps(say(HOT)).encode(), **{"content-type": content_type}
    )

    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "malformed_json", None),
        (b"{", "malformed_json", None),
        (b'{"model": "\xff"}', "malformed_json", None),
        (b'{"model": NaN}', "malformed_json", None),
        (b"[]", "invalid_request_body", None),
        (b'"text"', "invalid_request_body", None),
        (b"null", "invalid_request_body", None),
        (b"{}", "missing_model_field", "model"),
        (b'{"model": null}', "missing_model_field", "model"),
        (b'{"model": 7}', "invalid_request_body", "model"),
        (b'{"model": " "}', "invalid_request_body", "model"),
        (b'{"model": "m", "stream": "yes"}', "invalid_request_body", "stream"),
        (
            b'{"model": "m", "stream": true, "stream_options": []}',
            "invalid_request_body",
            "stream_options",
        ),
    ],
)
def test_a_body_that_cannot_be_routed_is_refused(
    scene: Scene, path: str, body: bytes, code: str, param: str | None
) -> None:
    """With the field that is wrong, before any node is asked."""
    assert told(post(scene.cortex, path, body), 400, code)["param"] == param


def test_a_body_that_is_not_json_by_name_is_refused(scene: Scene) -> None:
    """A form or a file upload is a mistake that its sender should hear of."""
    answer = post(scene.cortex, CHAT, b"model=a", **{"content-type": "multipart/form-data"})

    told(answer, 400, "invalid_request_body")


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_model_that_nobody_knows_is_a_404(scene: Scene, stream: bool) -> None:
    """As a clean status, also where a stream was asked for: SDKs raise NotFoundError by it."""
    answer = post_json(scene.cortex, CHAT, say("nobody/knows", stream=stream))

    error = told(answer, 404, "model_not_found")
    assert error["param"] == "model"
    assert "nobody/knows" in error["message"]


def test_a_model_that_fits_nowhere_is_a_404_of_its_own(scene: Scene) -> None:
    """Waiting cannot help, so nobody is told to."""
    answer = post_json(scene.cortex, CHAT, say("org/giant"))

    assert told(answer, 404, "model_infeasible")["param"] == "model"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_fleet_that_is_away_is_a_503(lonely: Daemon, stream: bool) -> None:
    """Transient: never a 404, always with when to come back."""
    answer = post_json(lonely, CHAT, say("org/gguf", stream=stream))

    told(answer, 503, "service_unavailable", "api_error")


def test_twenty_megabytes_are_taken_by_default(scene: Scene) -> None:
    """Images in base64 are that large, and every byte reaches the node."""
    text = "x" * (20 * 1024 * 1024)
    answer = post_json(scene.cortex, CHAT, say(HOT, text))

    assert answer.status_code == 200
    assert len(scene.node.bodies[-1]["messages"][0]["content"]) == len(text)


# Refusals of HTTP itself


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nope"), ("POST", "/v1/nope"), ("GET", "/v1/chat"), ("POST", "/v1//models")],
)
def test_an_unknown_route_is_told_in_the_envelope(scene: Scene, method: str, path: str) -> None:
    """SDKs show the message of an envelope, and nothing of an HTML page."""
    answer = scene.cortex.http.request(method, f"{scene.cortex.url}{path}")

    assert path in told(answer, 404, "route_not_found")["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("DELETE", "/v1/models", "GET"),
        ("DELETE", "/v1/models/org/family/a", "GET"),
        ("POST", "/health", "GET"),
        ("GET", "/fleet/models/load", "POST"),
    ],
)
def test_a_wrong_method_says_which_one_is_right(
    scene: Scene, method: str, path: str, allowed: str
) -> None:
    """405 with `Allow`, as HTTP wants it."""
    answer = scene.cortex.http.request(method, f"{scene.cortex.url}{path}")

    told(answer, 405, "method_not_allowed")
    assert allowed in answer.headers["allow"]


def test_no_model_of_that_id_is_a_404(scene: Scene) -> None:
    """With the code by which it differs from an unknown route."""
    for path in ("/v1/models/nobody/knows", "/v1/models/nobody%2Fknows"):
        error = told(get(scene.cortex, path), 404, "model_not_found")
        assert "'nobody/knows'" in error["message"]


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/fleet/models/load"])
def test_a_body_over_the_limit_is_told_to_a_client_that_still_sends(
    lonely: Daemon, path: str
) -> None:
    """Many clients read only after the last byte: a reset would show them a broken pipe."""
    url = urlsplit(lonely.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=10)
    connection.request("POST", path, body=b"x" * (20 * BODY_LIMIT))
    answer = connection.getresponse()
    error = json.loads(answer.read())["error"]
    connection.close()

    assert answer.status == 413
    assert answer.headers["x-request-id"]
    assert error["code"] == "request_too_large"
    assert "request_max_mb = 1" in error["message"]


def test_a_body_over_the_limit_is_told_to_an_sdk(lonely: Daemon) -> None:
    """One byte too much, chunked or measured; the limit itself is inside."""
    chunked = iter([b"x" * BODY_LIMIT, b"x"])

    told(lonely.http.post(f"{lonely.url}{CHAT}", content=chunked), 413, "request_too_large")
    told(post(lonely, CHAT, b"x" * (BODY_LIMIT + 1)), 413, "request_too_large")
    told(post(lonely, CHAT, b" " * BODY_LIMIT), 400, "malformed_json")


def test_a_refusal_does_not_lift_the_limit(lonely: Daemon) -> None:
    """What follows on the same client is measured like the first."""
    told(post(lonely, "/nope", b"x"), 404, "route_not_found")
    told(post(lonely, CHAT, b"x" * (2 * BODY_LIMIT)), 413, "request_too_large")


@pytest.mark.parametrize(
    ("request_head", "status", "code"),
    [
        (b"GET /version HTTP/1.0\r\n\r\n", 200, None),
        (b"GET /nope HTTP/1.0\r\n\r\n", 404, "route_not_found"),
        (b"NONSENSE\r\n\r\n", 400, "invalid_request_body"),
        (b"GET / HTTP/9.9\r\nhost: h\r\n\r\n", 400, "invalid_request_body"),
        (b"POST /v1/completions HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n", 400,
         "invalid_request_body"),
        (b"POST /v1/completions HTTP/1.1\r\nhost: h\r\nexpect: tea\r\ncontent-length: 0\r\n\r\n",
         400, "invalid_request_body"),
        (b"GET /version HTTP/1.1\r\nhost: h\r\nx: " + b"x" * 20000 + b"\r\n\r\n", 413,
         "request_too_large"),
    ],
    ids=["1.0", "1.0 unknown", "nonsense", "version", "length", "expect", "headers"],
)  # fmt: skip
def test_odd_http_gets_an_answer_and_an_end(
    scene: Scene, request_head: bytes, status: int, code: str | None
) -> None:
    """Old clients, scanners and broken proxies: a status, an id, the envelope, and goodbye."""
    url = urlsplit(scene.cortex.url)
    with socket.create_connection((url.hostname or "", url.port or 0), timeout=5) as connection:
        connection.sendall(request_head)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        body = json.loads(answer.read())
        end = connection.recv(1)

    assert answer.status == status
    assert answer.headers["x-request-id"]
    assert end == b""
    assert code is None or body["error"]["code"] == code


# Names of requests


@pytest.mark.parametrize("path", ["/version", "/nope", "/v1/models", "/v1/models/none", CHAT])
def test_a_sane_request_id_comes_back(scene: Scene, path: str) -> None:
    """On answers and refusals alike: it ties a client's log to the operator's."""
    answer = get(scene.cortex, path, **{"x-request-id": "trace_1.a-B"})

    assert answer.headers["x-request-id"] == "trace_1.a-B"


@pytest.mark.parametrize("theirs", ["", "a b", "x" * 129, "a\tb", "<script>", "caf\u00e9", 'a"b'])
def test_a_hostile_request_id_is_replaced(scene: Scene, theirs: str) -> None:
    """It lands in logs and headers, so it may not be everything."""
    answer = scene.cortex.http.get(
        f"{scene.cortex.url}/nope", headers=[(b"x-request-id", theirs.encode())]
    )

    assert re.fullmatch(r"req-[0-9a-f]{16}", answer.headers["x-request-id"])


def test_every_request_has_a_name_of_its_own(scene: Scene) -> None:
    """Also on one connection, and the log knows it."""
    ids = {post_json(scene.cortex, CHAT, say(HOT)).headers["x-request-id"] for _ in range(3)}

    assert len(ids) == 3
    eventually(lambda: ids <= {line["request_id"] for line in scene.cortex.events("request.done")})


def test_a_stream_carries_its_name(scene: Scene) -> None:
    """Headers that go out early are headers too."""
    url = f"{scene.cortex.url}{CHAT}"
    scene.node.reply = told_in_a_stream
    try:
        with scene.cortex.http.stream(
            "POST", url, json=say(HOT, stream=True), headers={"x-request-id": "mine"}
        ) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["x-request-id"] == "mine"
            assert b"[DONE]" in answer.read()
    finally:
        scene.node.reply = None


def told_in_a_stream(handler: Handler) -> None:
    """Answer with the shortest complete stream."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]}
    handler.stream(f"data: {json.dumps(chunk)}\n\n".encode(), b"data: [DONE]\n\n")


# Orders


def test_a_model_is_loaded_and_unloaded_on_order(scene: Scene) -> None:
    """By hand, before the first request wants it."""
    loaded = post_json(scene.cortex, "/fleet/models/load", {"model": "org/cold", "node": "old"})
    again = post_json(scene.cortex, "/fleet/models/load", {"model": "org/cold"})
    gone = post_json(scene.cortex, "/fleet/models/unload", {"model": "org/cold", "drain_secs": 0})

    assert loaded.status_code in {200, 202}
    assert (loaded.json()["model"], loaded.json()["node"]) == ("org/cold", "old")
    assert loaded.json()["status"] in {"loaded", "loading"}
    assert again.status_code == 200
    assert again.json() == {"status": "loaded", "model": "org/cold", "node": "old"}
    assert gone.status_code == 200
    assert gone.json() == {"status": "unloaded", "model": "org/cold", "nodes": ["old"]}
    assert listed(scene, "org/cold")["loaded"] is False


@pytest.mark.parametrize("order", ["load", "unload"])
@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"", 400, "malformed_json", None),
        (b"[]", 400, "invalid_request_body", None),
        (b"{}", 400, "invalid_request_body", "model"),
        (b'{"model": ""}', 400, "invalid_request_body", "model"),
        (b'{"model": 3}', 400, "invalid_request_body", "model"),
        (b'{"model": "bare", "nodee": "old"}', 400, "invalid_request_body", "nodee"),
        (b'{"model": "bare", "node": "nowhere"}', 400, "invalid_request_body", "node"),
        (b'{"model": "nobody/knows"}', 404, "model_not_found", "model"),
    ],
)
def test_an_order_that_cannot_be_meant_is_refused(
    scene: Scene, order: str, body: bytes, status: int, code: str, param: str | None
) -> None:
    """A typo that was ignored would be an order carried out wrongly."""
    before = list(scene.node.asked)
    answer = post(scene.cortex, f"/fleet/models/{order}", body)

    assert told(answer, status, code)["param"] == param
    assert scene.node.asked == before


def test_a_load_that_can_never_fit_is_refused(scene: Scene) -> None:
    """At once, and without a word to the node."""
    answer = post_json(scene.cortex, "/fleet/models/load", {"model": "org/giant"})

    told(answer, 404, "model_infeasible")


def test_what_is_not_loaded_cannot_be_unloaded(scene: Scene) -> None:
    """Known to the catalogue is not loaded."""
    answer = post_json(scene.cortex, "/fleet/models/unload", {"model": "org/cold"})

    told(answer, 404, "model_not_found")


@pytest.mark.parametrize("secs", [-1, 3601, "soon"])
def test_a_drain_has_bounds(scene: Scene, secs: Any) -> None:
    """Nobody waits for ever."""
    body = {"model": HOT, "drain_secs": secs}

    error = told(post_json(scene.cortex, "/fleet/models/unload", body), 400, "invalid_request_body")
    assert error["param"] == "drain_secs"


def test_an_order_to_a_fleet_that_is_away_is_a_503(lonely: Daemon) -> None:
    """With when to come back."""
    answer = post_json(lonely, "/fleet/models/load", {"model": "org/gguf"})

    told(answer, 503, "service_unavailable", "api_error")


def test_a_decision_is_explained_without_acting(scene: Scene) -> None:
    """What would be done, every node, and nothing was asked of any of them."""
    before = list(scene.node.asked)

    hot = get(scene.cortex, "/fleet/explain?model=gpt-4").json()
    cold = get(scene.cortex, "/fleet/explain?model=org/cold").json()
    giant = get(scene.cortex, "/fleet/explain?model=org/giant&node=old").json()

    assert hot["resolved"] == HOT
    assert hot["decision"] == {
        "kind": "serve",
        "node": "old",
        "reason": "loaded",
        "saturated": False,
    }
    assert [one["kept"] for one in hot["considered"]] == [True]
    assert cold["decision"]["kind"] == "load"
    assert cold["decision"]["devices"] == [0]
    assert giant["decision"]["status"] == 404
    assert "9000 MiB" in giant["considered"][0]["detail"]
    assert scene.node.asked == before


@pytest.mark.parametrize("query", ["", "?model=", "?model=bare&node=nobody"])
def test_an_explanation_of_nothing_is_a_mistake(scene: Scene, query: str) -> None:
    """400, in the envelope."""
    refused = scene.cortex.http.get(f"{scene.cortex.url}/fleet/explain{query}")

    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_request_error"
