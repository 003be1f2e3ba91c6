"""A node that says less than ours is served as well as its answers allow."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cortex_core.principals import PRINCIPAL_HEADER, principal_of
from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, Handler, completion, fake_neuron
from tests.fleet.conversations import CHAT, ask, say, stream
from tests.fleet.processes import Daemon, Workbench, eventually, workbench
from tests.libs.cortex_dialects.streams import DONE, HELLO, ROLE, delta, frame

pytestmark = pytest.mark.fleet

MODELS: list[dict[str, Any]] = [
    {"id": "org/a", "harness": "candle", "vram_mb": 600},
    {"id": "org/b", "harness": "candle", "vram_mb": 600},
    {"id": "org/mystery", "harness": "candle"},
]


@pytest.fixture
def node() -> Iterator[FakeNeuron]:
    """One old node."""
    with fake_neuron(FakeNeuron(sizes={"org/a": 600, "org/b": 600})) as made:
        yield made


@pytest.fixture
def other() -> Iterator[FakeNeuron]:
    """Another old node."""
    with fake_neuron() as made:
        yield made


@pytest.fixture
def cortex(tmp_path: Path, node: FakeNeuron) -> Iterator[Daemon]:
    """A cortex in front of the old node, polling often since it has no events."""
    with workbench(tmp_path) as bench:
        yield in_front_of(bench, node)


def in_front_of(bench: Workbench, *nodes: FakeNeuron, **settings: Any) -> Daemon:
    """Start a cortex in front of these nodes."""
    return bench.cortex(
        {f"old{number}": one.url for number, one in enumerate(nodes)},
        MODELS,
        {"gpt-4": "org/a"},
        observation={"poll_secs": 0.1},
        **settings,
    )


def test_a_cold_model_is_loaded_and_served(cortex: Daemon, node: FakeNeuron) -> None:
    """The answer is the node's, to the byte."""
    answer = ask(cortex, "org/a")

    assert answer.json() == completion("org/a")
    assert node.asked == ["load org/a evict -", "infer org/a"]


def test_the_body_goes_through_as_it_came(cortex: Daemon, node: FakeNeuron) -> None:
    """Nothing is read but the front, and the client's secrets stay with us."""
    node.hold("org/a")
    eventually(lambda: places(cortex, "org/a"))
    body = say("org/a", unheard_of={"deep": [1, 2.5, None]})

    cortex.http.post(
        f"{cortex.url}{CHAT}",
        json=body,
        headers={"authorization": "Bearer secret", "cookie": "c=1", "x-request-id": "mine-1"},
    )

    assert node.bodies[-1] == body
    assert "authorization" not in node.headers[-1]
    assert "cookie" not in node.headers[-1]
    assert node.headers[-1]["x-request-id"] == "mine-1"


def test_a_node_learns_who_asks_and_nobody_says_so_themselves(
    cortex: Daemon, node: FakeNeuron
) -> None:
    """A hash of the client, the same in the log; a client's own word for it is not passed on."""
    node.hold("org/a")
    eventually(lambda: places(cortex, "org/a"))
    told = []
    for key in ("one", "two", "one"):
        headers = {"authorization": f"Bearer {key}", PRINCIPAL_HEADER: "0123456789abcdef"}
        cortex.http.post(f"{cortex.url}{CHAT}", json=say("org/a"), headers=headers)
        told.append(node.headers[-1][PRINCIPAL_HEADER])

    assert told[0] == told[2] == principal_of({"authorization": "Bearer one"}, "127.0.0.1")
    assert len({*told, "0123456789abcdef"}) == 3
    eventually(lambda: [one["principal"] for one in cortex.events("request.done")] == told)


def test_a_node_gets_its_token_and_not_the_clients(
    bench: Workbench, node: FakeNeuron, tmp_path: Path
) -> None:
    """Read from a file beside the configuration, sent on every request to that node."""
    node.hold("org/a")
    (tmp_path / "old.token").write_text("node-secret\n")
    cortex = bench.cortex({"old0": node.url}, MODELS, tokens={"old0": "old.token"})

    cortex.http.post(
        f"{cortex.url}{CHAT}", json=say("org/a"), headers={"authorization": "Bearer theirs"}
    )

    assert node.headers[-1]["authorization"] == "Bearer node-secret"


def test_an_alias_reaches_the_node_as_its_model(cortex: Daemon, node: FakeNeuron) -> None:
    """Only the name is written anew."""
    assert ask(cortex, "gpt-4").status_code == 200
    assert node.bodies[-1] == {**say("gpt-4"), "model": "org/a"}


def test_the_least_recently_used_makes_room(cortex: Daemon, node: FakeNeuron) -> None:
    """Victims are named in the load itself."""
    for model in ("org/a", "org/b", "org/a"):
        assert ask(cortex, model).status_code == 200

    assert [line for line in node.asked if line.startswith("load")] == [
        "load org/a evict -",
        "load org/b evict org/a",
        "load org/a evict org/b",
    ]


def test_conversations_stay_where_they_are_and_are_shared(
    tmp_path: Path, node: FakeNeuron, other: FakeNeuron
) -> None:
    """Eight at once, with one long system prompt and no key: half of them on each node."""
    for one in (node, other):
        one.hold("org/a")
    system = {"role": "system", "content": "Be careful. " * 3000}

    def turn(conversation: int, number: int) -> list[dict[str, str]]:
        turns = [{"role": "user", "content": f"task {conversation}"}]
        for answered in range(number):
            turns += [
                {"role": "assistant", "content": "done"},
                {"role": "user", "content": f"go on {answered}"},
            ]
        return [system, *turns]

    with workbench(tmp_path) as bench:
        cortex = in_front_of(bench, node, other)
        for number in range(3):
            for conversation in range(8):
                messages = turn(conversation, number)
                assert ask(cortex, "org/a", messages=messages).status_code == 200

    def conversations(of: FakeNeuron) -> list[str]:
        return [body["messages"][1]["content"] for body in of.bodies]

    here, there = conversations(node), conversations(other)
    assert set(here).isdisjoint(there)
    assert len(set(here)) == len(set(there)) == 4


def test_a_burst_loads_once(cortex: Daemon, node: FakeNeuron) -> None:
    """Also when the node shows nothing until the load is done."""
    node.load_secs = 0.3
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(cortex, "org/a"), range(8)))

    assert [answer.status_code for answer in answers] == [200] * 8
    assert [line for line in node.asked if line.startswith("load")] == ["load org/a evict -"]


def test_already_loaded_is_not_a_failure(cortex: Daemon, node: FakeNeuron) -> None:
    """The old way to lose a race."""

    def refuse(handler: Handler) -> None:
        node.hold("org/a")
        handler.send({"error": "model org/a already loaded"}, 400)

    node.load_reply = refuse

    assert ask(cortex, "org/a").status_code == 200


def test_a_size_is_learnt_from_a_refusal(cortex: Daemon, node: FakeNeuron) -> None:
    """The node says how much is missing; the next attempt names who leaves."""
    node.hold("org/a")
    node.hold("org/b")
    eventually(lambda: places(cortex, "org/b"))
    attempts: list[dict[str, Any]] = []

    def measure(handler: Handler) -> None:
        attempts.append(node.bodies[-1])
        if not node.bodies[-1]["evict"]:
            error = {"code": "insufficient_vram", "needed_mb": 500, "message": "no"}
            handler.send({"error": error}, 409)
            return
        for victim in node.bodies[-1]["evict"]:
            node.resident.pop(victim)
        node.hold("org/mystery")
        handler.send({"status": "loaded"})

    node.load_reply = measure

    assert ask(cortex, "org/mystery").status_code == 200
    assert [len(one["evict"]) for one in attempts] == [0, 1]


@pytest.mark.parametrize(
    ("kind", "status", "retry"),
    [("corrupt", 404, False), ("quant_not_found", 404, False), ("fetch_failed", 503, True)],
)
def test_a_preflight_refusal_says_whether_to_try_again(
    cortex: Daemon, node: FakeNeuron, kind: str, status: int, retry: bool
) -> None:
    """What can never load is permanent; a network that is down is not."""
    error = {"code": kind, "kind": kind, "message": "/secret/path is broken"}
    node.load_reply = lambda handler: handler.send({"error": error}, 422)

    answer = ask(cortex, "org/a")

    assert answer.status_code == status
    assert ("retry-after" in answer.headers) == retry
    assert "secret" not in answer.text


def test_a_node_that_refuses_for_now_is_replaced(
    bench: Workbench, node: FakeNeuron, other: FakeNeuron
) -> None:
    """503 before the first byte: the other replica answers."""
    for one in (node, other):
        one.hold("org/a")
    node.reply = lambda handler: handler.send({"error": "busy"}, 503)
    cortex = in_front_of(bench, node, other)

    answer = ask(cortex, "org/a")

    assert answer.status_code == 200
    assert (len(node.asked), len(other.asked)) == (1, 1)


def test_a_burst_is_spread_over_equal_replicas(
    bench: Workbench, node: FakeNeuron, other: FakeNeuron
) -> None:
    """Although no node has reported anything yet."""

    def slowly(handler: Handler) -> None:
        time.sleep(0.3)  # long enough for all eight to overlap
        handler.send(completion("org/a"))

    for one in (node, other):
        one.hold("org/a")
        one.reply = slowly
    cortex = in_front_of(bench, node, other)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: ask(cortex, "org/a"), range(8)))

    assert (len(node.asked), len(other.asked)) == (4, 4)


@pytest.mark.parametrize(
    ("status", "body", "becomes", "code"),
    [
        (400, {"error": "model panicked at /srv/x.rs:3"}, 400, "invalid_request_body"),
        (
            400,
            {
                "error": {
                    "code": "context_length_exceeded",
                    "message": "maximum context length is 9 tokens",
                    "max": 9,
                }
            },
            400,
            "context_length_exceeded",
        ),
        (500, {"error": "thread panicked at /srv/secret.rs"}, 502, "upstream_malformed_response"),
        (503, {"error": {"code": "x", "message": "secret"}}, 503, "x"),
        (
            429,
            {
                "error": {
                    "type": "rate_limit_error",
                    "code": "rate_limit_exceeded",
                    "message": "slow down",
                }
            },
            503,
            "rate_limit_exceeded",
        ),
    ],
)
def test_a_refusal_becomes_one_envelope(
    cortex: Daemon,
    node: FakeNeuron,
    status: int,
    body: dict[str, Any],
    becomes: int,
    code: str,
) -> None:
    """What the client did is told in the node's words, what the node did is not."""
    node.hold("org/a")
    eventually(lambda: places(cortex, "org/a"))
    node.reply = lambda handler: handler.send(body, status)

    answer = ask(cortex, "org/a")

    assert (answer.status_code, answer.json()["error"]["code"]) == (becomes, code)
    assert "secret" not in answer.text
    assert ("retry-after" in answer.headers) == (becomes == 503)


@pytest.mark.parametrize("reply", [b"<html>", b"[]", b"{"], ids=["html", "array", "cut"])
def test_nonsense_instead_of_an_answer_is_a_502(
    cortex: Daemon, node: FakeNeuron, reply: bytes
) -> None:
    """Never passed on as if it were one."""
    node.hold("org/a")
    eventually(lambda: places(cortex, "org/a"))

    def nonsense(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("content-length", str(len(reply)))
        handler.end_headers()
        handler.wfile.write(reply)

    node.reply = nonsense
    answer = ask(cortex, "org/a")

    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "upstream_malformed_response"


def test_a_stream_passes_to_the_byte_less_its_usage(cortex: Daemon, node: FakeNeuron) -> None:
    """Comments, order and content are the node's."""
    node.hold("org/a")
    eventually(lambda: places(cortex, "org/a"))
    node.reply = lambda handler: handler.stream(HELLO[:40], HELLO[40:100], HELLO[100:])

    told = stream(cortex, "org/a")

    assert told.text() == "Hello"
    assert told.done
    assert [chunk for chunk in told.payloads() if "usage" in chunk] == []
    assert cortex.last_event("request.done")["cached_tokens"] == 3


@pytest.mark.parametrize("cut", [True, False], ids=["connection cut", "ended early"])
def test_a_lost_stream_ends_in_an_error_event(cortex: Daemon, node: FakeNeuron, cut: bool) -> None:
    """Never a silent or a false normal end."""
    node.hold("org/a")
    eventually(lambda: places(cortex, "org/a"))
    node.reply = lambda handler: handler.stream(frame(ROLE), frame(delta("Hel")), cut=cut)

    told = stream(cortex, "org/a")

    assert [error["code"] for error in told.errors()] == ["upstream_unreachable"]
    assert not told.done
    assert cortex.last_event("request.failed")["code"] == "upstream_unreachable"


def test_a_silent_stream_is_kept_alive_and_then_given_up(
    bench: Workbench, node: FakeNeuron
) -> None:
    """Comments each second from `hold_headers_secs` on; the idle limit ends it with an event."""
    node.hold("org/a")

    def stall(handler: Handler) -> None:
        handler.stream(frame(ROLE), cut=True)
        handler.connection.setblocking(True)
        time.sleep(3)  # a stall longer than the idle limit

    node.reply = stall
    cortex = in_front_of(
        bench, node, timeouts={"idle": 2.5, "hold_headers_secs": 0.2, "first_byte": 5}
    )

    told = stream(cortex, "org/a")

    comments = [at for at, one in told.frames if one.startswith(":")]
    assert len(comments) >= 2
    assert [error["code"] for error in told.errors()] == ["upstream_timeout"]


def test_a_node_that_never_begins_is_a_504(bench: Workbench, node: FakeNeuron) -> None:
    """The first byte has a limit of its own."""
    node.hold("org/a")
    node.reply = lambda _: time.sleep(2)  # longer than the limit below
    cortex = in_front_of(bench, node, timeouts={"first_byte": 0.3})

    answer = ask(cortex, "org/a")

    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "upstream_timeout"


def test_an_unknown_status_is_never_routable(cortex: Daemon, node: FakeNeuron) -> None:
    """`poisoned` is not `loaded`."""
    node.hold("local", status="poisoned")
    eventually(lambda: places(cortex, "local"))

    assert ask(cortex, "local").status_code != 200
    assert "infer local" not in node.asked


def places(cortex: Daemon, model: str) -> list[Any]:
    """Return where cortex sees a model."""
    rows = cortex.http.get(f"{cortex.url}/v1/models").json()["data"]
    return [place for row in rows if row["id"] == model for place in row["locations"]]


def test_a_finished_stream_is_done(cortex: Daemon, node: FakeNeuron) -> None:
    """[DONE] is the node's to send."""
    node.hold("org/a")
    eventually(lambda: places(cortex, "org/a"))
    node.reply = lambda handler: handler.stream(frame(delta("x", finish_reason="stop")), DONE)

    assert stream(cortex, "org/a").done
