"""Clients that speak other dialects than the nodes are served in their own, on every route."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, Handler, completion, fake_neuron
from tests.fleet.conversations import frames
from tests.fleet.processes import Daemon, eventually, workbench
from tests.libs.cortex_dialects.messages.grammar import accept, folded
from tests.libs.cortex_dialects.streams import DONE, ROLE, USAGE, delta, frame

pytestmark = pytest.mark.fleet

MESSAGES, RESPONSES, CHAT = "/v1/messages", "/v1/responses", "/v1/chat/completions"
MODEL = "org/a"
SYSTEM = "  You are Bo.\n\nNever say <|no|>. \u00e9\u4e16 "
ANTHROPIC = {"anthropic-version": "2023-06-01"}


@dataclass(frozen=True, slots=True)
class Scene:
    """One gateway in front of one node of another make."""

    node: FakeNeuron
    cortex: Daemon

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Ask and return the whole answer."""
        return self.cortex.http.post(f"{self.cortex.url}{path}", json=body, headers=headers)

    def line_of(self, answer: httpx.Response) -> dict[str, Any]:
        """Return the log line of a request, which follows its answer."""
        name = answer.headers["x-request-id"]

        def found() -> list[dict[str, Any]]:
            lines = self.cortex.events("request.done") + self.cortex.events("request.failed")
            return [line for line in lines if line["request_id"] == name]

        return eventually(found)[0]

    def received(self) -> dict[str, Any]:
        """Return the body that the node got last."""
        return self.node.bodies[-1]


@pytest.fixture(scope="module")
def scene_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The daemons."""
    node = FakeNeuron(total_mb=2000, sizes={MODEL: 600})
    node.hold(MODEL)
    models = [{"id": MODEL, "harness": "candle", "vram_mb": 600}]
    aliases = {"claude-*": MODEL, "gpt-*": MODEL}
    timeouts = {"hold_headers_secs": 0.2, "idle": 1.5, "first_byte": 3.0}
    with fake_neuron(node), workbench(tmp_path_factory.mktemp("dialects")) as bench:
        observation = {"poll_secs": 0.1}
        cortex = bench.cortex(
            {"old": node.url}, models, aliases, observation=observation, timeouts=timeouts
        )
        eventually(lambda: _loaded(cortex))
        yield Scene(node, cortex)


def _loaded(cortex: Daemon) -> bool:
    rows = cortex.http.get(f"{cortex.url}/v1/models").json()["data"]
    return any(row["id"] == MODEL and row["loaded"] for row in rows)


@pytest.fixture
def scene(scene_of_module: Scene) -> Iterator[Scene]:
    """The daemons, the node answering as usual."""
    scene_of_module.node.reply = None
    yield scene_of_module
    scene_of_module.node.reply = None


def message(**more: Any) -> dict[str, Any]:
    """Return a small Messages request."""
    turns = [{"role": "user", "content": "hi"}]
    return {"model": MODEL, "max_tokens": 9, "messages": turns, **more}


def streamed(*chunks: bytes, cut: bool = False) -> Any:
    """Return a reply of the node that streams these."""

    def reply(handler: Handler) -> None:
        handler.stream(*chunks, cut=cut)

    return reply


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the JSON events of a streamed answer, each under the name it has inside."""
    made = []
    for text in answer.text.split("\n\n"):
        lines = text.splitlines()
        if lines and lines[0].startswith("event: "):
            value = json.loads(lines[1].removeprefix("data: "))
            assert lines[0] == f"event: {value['type']}"
            made.append(value)
    return made


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            CHAT,
            {
                "messages": [
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": "hi"},
                ]
            },
        ),
        (
            MESSAGES,
            {"system": SYSTEM, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
        ),
        (
            MESSAGES,
            {
                "system": [{"type": "text", "text": SYSTEM}],
                "messages": [{"role": "user", "content": "hi"}],
                "max_tokens": 9,
            },
        ),
        (RESPONSES, {"instructions": SYSTEM, "input": "hi"}),
        (
            RESPONSES,
            {"input": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "hi"}]},
        ),
    ],
)
def test_a_system_prompt_reaches_the_node_verbatim_and_alone(
    scene: Scene, path: str, body: dict[str, Any]
) -> None:
    """The application's words, and none of ours beside them."""
    assert scene.post(path, {"model": MODEL, **body}).status_code == 200

    assert scene.received()["messages"] == [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "hi"},
    ]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "hi"}]}),
        (MESSAGES, message()),
        (RESPONSES, {"input": "hi"}),
    ],
)
def test_nothing_is_said_for_an_application_that_says_nothing(
    scene: Scene, path: str, body: dict[str, Any]
) -> None:
    """No system prompt means none."""
    assert scene.post(path, {**body, "model": MODEL}).status_code == 200

    assert scene.received()["messages"] == [{"role": "user", "content": "hi"}]


def test_the_same_turn_is_the_same_bytes_for_the_node(scene: Scene) -> None:
    """Also when an agent's account header changed in between; so the cache is found again."""

    def system(number: int) -> list[dict[str, Any]]:
        header = f"x-anthropic-billing-header: cc_version=1; cch={number}"
        return [{"type": "text", "text": header}, {"type": "text", "text": SYSTEM}]

    for number in (1, 2):
        scene.post(MESSAGES, message(system=system(number), metadata={"user_id": "u"}))

    assert scene.node.bodies[-1] == scene.node.bodies[-2]
    assert list(scene.node.bodies[-1]) == list(scene.node.bodies[-2])
    assert scene.received()["messages"][0]["content"] == SYSTEM


def test_a_whole_message(scene: Scene) -> None:
    """Asked under a name that an alias stands for, answered under it."""
    answer = scene.post(MESSAGES, message(model="claude-sonnet-4-5"), **ANTHROPIC)
    told = answer.json()

    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    assert told.pop("id").startswith("msg_")
    assert told == {
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 2,
        },
    }
    assert scene.received()["model"] == MODEL
    line = scene.line_of(answer)
    assert (line["dialect"], line["prompt_tokens"], line["model"]) == ("anthropic", 5, MODEL)


def test_a_streamed_message(scene: Scene) -> None:
    """In Anthropic's order, with the node's usage, which the node was asked for."""
    hello = [frame(ROLE), frame(delta("Hel")), frame(delta("lo"))]
    scene.node.reply = streamed(
        *hello, frame(delta(None, finish_reason="stop")), frame(USAGE), DONE
    )
    answer = scene.post(MESSAGES, message(stream=True))
    told = events(answer)

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert accept(told).state == "end"
    assert folded(told)["content"] == [{"type": "text", "text": "Hello"}]
    assert folded(told)["usage"]["cache_read_input_tokens"] == 3
    assert scene.received()["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
def test_slashes_behind_a_path_are_no_other_path(scene: Scene, path: str) -> None:
    """The answer is the same, and nothing goes wrong behind it."""
    body = {**message(), "input": "hi"}
    for odd in (f"{path}/", f"{path}//", f"{path}?beta=true"):
        answer = scene.post(odd, body)
        assert answer.status_code == 200
        assert scene.line_of(answer)["status"] == 200

    assert not [line for line in scene.cortex.log() if line["level"] == "error"]


@pytest.mark.parametrize("chunks", range(6))
def test_a_lost_stream_ends_in_an_error_event_at_every_boundary(scene: Scene, chunks: int) -> None:
    """Also when the model had finished: what the node still had to say is lost."""
    sent = [
        frame(ROLE),
        frame(delta("Hel")),
        frame(delta("lo"))[:20],
        frame(delta("lo"))[20:],
        frame(delta(None, finish_reason="stop")),
    ]
    scene.node.reply = streamed(*sent[:chunks], cut=True)
    answer = scene.post(MESSAGES, message(stream=True))
    if answer.status_code != 200:
        assert chunks < 2  # nothing of an answer was there yet
        assert answer.json()["error"]["type"] == "overloaded_error"
        assert answer.headers["retry-after"]
        return
    told = events(answer)

    assert accept(told).state == "end"
    assert told[-1]["type"] == "error"


@pytest.mark.parametrize("path", [MESSAGES, RESPONSES])
def test_an_error_frame_of_the_node_is_told_in_the_clients_words(scene: Scene, path: str) -> None:
    """And ends the stream."""
    error = {"error": {"message": "the engine fell over", "type": "api_error", "code": "x"}}
    scene.node.reply = streamed(frame(ROLE), frame(delta("Hel")), frame(error))
    answer = scene.post(
        path,
        message(stream=True)
        if path == MESSAGES
        else {"model": MODEL, "input": "hi", "stream": True},
    )
    last = events(answer)[-1]

    assert last["type"] == ("error" if path == MESSAGES else "response.failed")
    assert "fell over" in json.dumps(last)
    assert scene.line_of(answer)["code"] == "x"


def test_a_message_is_kept_alive_with_pings_from_its_start(scene: Scene) -> None:
    """While the model loads or reads; and a node that stays silent is told as an error event."""

    def silent(handler: Handler) -> None:
        handler.stream(frame(ROLE), cut=True)
        time.sleep(2.0)  # longer than the gateway listens to silence

    scene.node.reply = silent
    body = message(stream=True)
    url = f"{scene.cortex.url}{MESSAGES}"
    with scene.cortex.http.stream("POST", url, json=body) as response:
        told = [json.loads(text.split("data: ")[1]) for _, text in frames(response)]

    kinds = [event["type"] for event in told]
    assert kinds[:2] == ["message_start", "ping"]
    assert kinds[-1] == "error"
    accept(told)


@pytest.mark.parametrize(
    ("body", "status", "kind", "says"),
    [
        (b"{", 400, "invalid_request_error", "JSON"),
        (b"[]", 400, "invalid_request_error", "object"),
        (b"{}", 400, "invalid_request_error", "model"),
        (b'{"model": "org/a"}', 400, "invalid_request_error", "messages"),
        (b'{"model":"org/a","messages":[{"role":"x"}]}', 400, "invalid_request_error", "role"),
        (
            b'{"model":"nope","messages":[{"role":"user","content":"x"}]}',
            404,
            "not_found_error",
            "nope",
        ),
    ],
)
@pytest.mark.parametrize("path", [MESSAGES, f"{MESSAGES}/count_tokens"])
def test_every_refusal_has_anthropics_envelope(
    scene: Scene, path: str, body: bytes, status: int, kind: str, says: str
) -> None:
    """Streamed or not, on both routes."""
    answer = scene.cortex.http.post(
        f"{scene.cortex.url}{path}", content=body, headers={"content-type": "application/json"}
    )
    told = answer.json()

    assert answer.status_code == status
    assert told.keys() == {"type", "error", "request_id"}
    assert told["type"] == "error"
    assert told["error"].keys() == {"type", "message"}
    assert told["error"]["type"] == kind
    assert says in told["error"]["message"]
    assert told["request_id"] == answer.headers["request-id"]
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    "path", [CHAT, MESSAGES, RESPONSES, f"{MESSAGES}/count_tokens", f"{RESPONSES}/input_tokens"]
)
@pytest.mark.parametrize("depth", [300, 900, 1100])
def test_a_body_nested_beyond_measure_is_the_clients_mistake(
    scene: Scene, path: str, depth: int
) -> None:
    """Not the node's: it is never asked, and its circuit counts nothing."""
    asked = len(scene.node.asked)
    deep = "[" * depth + "]" * depth
    body = json.dumps({**message(model="gpt-x"), "input": "hi"})[:-1] + f',"deep":{deep}}}'
    answer = scene.cortex.http.post(
        f"{scene.cortex.url}{path}", content=body, headers={"content-type": "application/json"}
    )

    assert answer.status_code == 400
    assert len(scene.node.asked) == asked


def test_what_a_node_refuses_is_refused_in_the_clients_words(scene: Scene) -> None:
    """A prompt too long has the sentence that agents act on."""
    error = {
        "message": "This model's maximum context length is 512 tokens; the prompt has 600.",
        "type": "invalid_request_error",
        "code": "context_length_exceeded",
        "max": 512,
        "prompt_len": 600,
    }
    scene.node.reply = lambda handler: handler.send({"error": error}, 400)

    for stream in (False, True):
        told = scene.post(MESSAGES, message(stream=stream)).json()
        assert told["error"] == {
            "type": "invalid_request_error",
            "message": "prompt is too long: 600 tokens > 512 maximum",
        }
        openai = scene.post(RESPONSES, {"model": MODEL, "input": "hi", "stream": stream}).json()
        assert openai["error"]["code"] == "context_length_exceeded"
        assert "maximum context length is 512 tokens" in openai["error"]["message"]


def test_an_answer_that_is_not_finished_is_not_believed(scene: Scene) -> None:
    """A node that leaves the finish reason out gets a 502, not an end of turn."""
    half = completion(MODEL)
    half["choices"][0].pop("finish_reason")
    scene.node.reply = lambda handler: handler.send(half)

    answer = scene.post(MESSAGES, message())
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "api_error")


@pytest.mark.parametrize("path", [f"{MESSAGES}/batches", "/v1/files", "/nothing"])
def test_unknown_routes_know_whose_client_asks(scene: Scene, path: str) -> None:
    """By the header where the path does not tell."""
    told = scene.cortex.http.get(f"{scene.cortex.url}{path}", headers=ANTHROPIC).json()

    assert told["error"]["type"] in {"not_found_error", "invalid_request_error"}
    assert told["type"] == "error"


def test_models_are_listed_in_pages_for_anthropics_clients(scene: Scene) -> None:
    """A client that lists only names which begin with `claude` finds the model."""
    url = f"{scene.cortex.url}/v1/models"
    told = scene.cortex.http.get(url, params={"limit": 1000}, headers=ANTHROPIC).json()

    assert [(row["id"], row["display_name"]) for row in told["data"]] == [
        ("claude-org/a", MODEL),
        ("gpt-org/a", MODEL),
        (MODEL, MODEL),
    ]
    assert not told["has_more"]
    one = scene.cortex.http.get(f"{url}/claude-org/a", headers=ANTHROPIC).json()
    assert one == told["data"][0]
    assert scene.cortex.http.get(url, params={"limit": 0}, headers=ANTHROPIC).status_code == 400
    openai = scene.cortex.http.get(url).json()["data"]
    assert [row["id"] for row in openai] == [row["id"] for row in told["data"]]


def test_a_name_that_only_a_pattern_covers_is_found(scene: Scene) -> None:
    """Whoever may ask a model under a name may look the name up, too."""
    url = f"{scene.cortex.url}/v1/models"
    theirs = scene.cortex.http.get(f"{url}/claude-sonnet-9", headers=ANTHROPIC).json()
    openai = scene.cortex.http.get(f"{url}/gpt-9").json()

    assert (theirs["id"], theirs["display_name"]) == ("claude-sonnet-9", MODEL)
    assert (openai["id"], openai["alias_of"], openai["loaded"]) == ("gpt-9", MODEL, True)
    assert scene.cortex.http.get(f"{url}/gemini-9").status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{MESSAGES}/count_tokens", message()),
        (f"{RESPONSES}/input_tokens", {"model": MODEL, "input": "hi"}),
    ],
)
def test_tokens_are_estimated_where_no_node_can_count(
    scene: Scene, path: str, body: dict[str, Any]
) -> None:
    """And the answer says so."""
    scene.node.reply = lambda handler: handler.send({"error": "no such route"}, 404)
    answer = scene.post(path, body)

    assert answer.headers["x-cortex-token-count"] == "estimate"
    assert answer.json()["input_tokens"] >= 1


def test_tokens_are_counted_by_a_node_that_can(scene: Scene) -> None:
    """It gets the chat completion that an answer would be asked with, less what only that needs."""
    scene.node.reply = lambda handler: handler.send({"model": MODEL, "count": 42})
    tools = [{"name": "ls", "input_schema": {"type": "object"}}]
    answer = scene.post(
        f"{MESSAGES}/count_tokens", message(system=SYSTEM, tools=tools, stream=True)
    )

    assert answer.json() == {"input_tokens": 42}
    assert answer.headers["x-cortex-token-count"] == "exact"
    asked = scene.received()
    assert asked["model"] == MODEL
    assert asked["messages"][0]["content"] == SYSTEM
    assert asked["tools"][0]["function"]["name"] == "ls"
    assert not {"stream", "stream_options", "max_tokens"} & set(asked)


def test_a_prompt_that_a_node_refuses_to_count_is_refused(scene: Scene) -> None:
    """In its words: an estimate would be wrong."""
    error = {"message": "this model cannot see", "type": "invalid_request_error", "code": "vision"}
    scene.node.reply = lambda handler: handler.send({"error": error}, 400)
    answer = scene.post(f"{MESSAGES}/count_tokens", message())

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "this model cannot see"


def test_a_request_that_asks_for_a_schema_reaches_the_node_with_it(scene: Scene) -> None:
    """From every dialect in the node's own form."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    form = {"type": "json_schema", "schema": schema}
    scene.post(MESSAGES, message(output_config={"format": form}))
    anthropic = scene.received()["response_format"]["json_schema"]["schema"]
    named = {**form, "name": "answer"}
    scene.post(RESPONSES, {"model": MODEL, "input": "hi", "text": {"format": named}})
    openai = scene.received()["response_format"]["json_schema"]["schema"]

    assert anthropic == openai == schema
