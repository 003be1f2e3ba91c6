"""Requests are seen while they run, ended on demand, and remembered for a while."""

import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from cortex_gateway.in_flight import KEEP_ENDED
from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, Handler, fake_neuron
from tests.fleet.conversations import CHAT, Talk, entry, in_flight, say
from tests.fleet.processes import Daemon, Workbench, eventually, workbench
from tests.libs.cortex_dialects.streams import ROLE, delta, frame

pytestmark = pytest.mark.fleet

MODEL = "org/a"
LONG: dict[str, Any] = {"text": "Tell a long story about a lighthouse.", "max_tokens": 400}
STOPPED_WITHIN_SECS = 0.25
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    "/v1/completions": {"prompt": "hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
    "/v1/responses": {"input": "hi"},
}


class Held:
    """A node's answer that begins and then waits to be let go; it notices when nobody listens."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.began = threading.Event()
        self.broken = threading.Event()

    def __call__(self, handler: Handler) -> None:
        """Answer with three tokens, then with one each few milliseconds until told to end."""
        self.began.set()
        try:
            if not handler.node.bodies[-1].get("stream"):
                handler.connection.settimeout(10)
                if handler.connection.recv(1) == b"":
                    self.broken.set()
                return
            handler.stream(frame(ROLE), frame(delta("a")), frame(delta("b")), cut=True)
            while not self.go_on.wait(0.01):
                token = frame(delta("c"))
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(token), token))
        except OSError:
            self.broken.set()


@pytest.fixture
def held() -> Iterator[Held]:
    """What the node answers; let go in the end."""
    made = Held()
    yield made
    made.go_on.set()


@pytest.fixture
def cortex(tmp_path: Any, held: Held) -> Iterator[Daemon]:
    """A gateway in front of a node that answers like that."""
    node = FakeNeuron(sizes={MODEL: 600}, reply=held)
    node.hold(MODEL)
    models = [{"id": MODEL, "harness": "candle", "vram_mb": 600}]
    with fake_neuron(node), workbench(tmp_path) as bench:
        made = bench.cortex(
            {"old": node.url}, models, {"gpt-4": MODEL}, observation={"poll_secs": 0.1}
        )
        eventually(lambda: rows(made, "nodes", "/fleet")[0]["models"])
        yield made


def rows(cortex: Daemon, key: str = "in_flight", path: str = "/fleet/requests") -> list[Any]:
    """Return a list that the gateway tells of."""
    found: list[Any] = cortex.http.get(f"{cortex.url}{path}").json()[key]
    return found


def cancel(cortex: Daemon, name: str) -> httpx.Response:
    """Cancel a request."""
    return cortex.http.delete(f"{cortex.url}/fleet/requests/{quote(name, safe='')}")


class Asking(threading.Thread):
    """A request asked in the background, read to its end."""

    def __init__(self, cortex: Daemon, path: str, *, stream: bool) -> None:
        super().__init__()
        self.url = f"{cortex.url}{path}"
        self.body = {"model": MODEL, "stream": stream, **BODIES[path]}
        self.status, self.text, self.headers = 0, "", httpx.Headers()
        self.start()

    def run(self) -> None:
        """Ask."""
        with httpx.Client(timeout=30, trust_env=False) as client:
            answer = client.post(self.url, json=self.body, headers={"x-request-id": "mine-1"})
        self.status, self.text, self.headers = answer.status_code, answer.text, answer.headers


def test_a_request_is_seen_on_its_way_and_when_it_has_ended(cortex: Daemon, held: Held) -> None:
    """With its age, where it is, how far it is; its name is the client's own."""
    asking = Asking(cortex, CHAT, stream=True)
    (row, *_) = eventually(lambda: [one for one in rows(cortex) if one["tokens"] > 3])

    assert {key: row[key] for key in ("id", "phase", "dialect", "model", "node", "attempts")} == {
        "id": "mine-1",
        "phase": "answering",
        "dialect": "openai",
        "model": MODEL,
        "node": "old",
        "attempts": 1,
    }
    assert 0 < row["age_secs"] < 10
    assert len(row["principal"]) == 16
    assert row["stream"] is True
    later = eventually(lambda: rows(cortex)[0]["tokens"] > row["tokens"] and rows(cortex)[0])
    assert later["age_secs"] > row["age_secs"]

    held.go_on.set()
    asking.join(10)
    assert rows(cortex) == []
    (ended,) = rows(cortex, "ended")
    assert (ended["id"], ended["outcome"], ended["code"]) == (
        "mine-1",
        "failed",
        "upstream_unreachable",
    )


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", BODIES)
def test_a_cancelled_request_ends_in_words_and_reaches_the_node(
    cortex: Daemon, held: Held, path: str, stream: bool
) -> None:
    """A status that no client repeats, or the dialect's error event; the node hears of it."""
    asking = Asking(cortex, path, stream=stream)
    assert held.began.wait(10)
    if stream:
        eventually(lambda: rows(cortex)[0]["phase"] == "answering")

    answer = cancel(cortex, "mine-1")
    cancelled = time.monotonic()
    asking.join(10)

    assert answer.json() == {"status": "cancelled", "id": "mine-1", "count": 1}
    assert held.broken.wait(1)
    assert time.monotonic() - cancelled < 1
    assert "an operator of this server cancelled the request" in asking.text
    assert asking.status == (200 if stream else 499)
    if stream:
        assert "[DONE]" not in asking.text
        assert "message_stop" not in asking.text
        assert "response.completed" not in asking.text
    failed = cortex.last_event("request.failed")
    assert (failed["code"], failed["request_id"]) == ("request_cancelled", "mine-1")
    assert rows(cortex, "ended")[0]["outcome"] == "cancelled"
    assert rows(cortex) == []


def test_a_request_that_waits_for_a_model_can_be_cancelled(
    tmp_path: Any,
) -> None:
    """It is seen as waiting for what it asked for, and its client hears a clean no."""
    node = FakeNeuron(sizes={MODEL: 600}, load_reply=lambda _: time.sleep(3))
    models = [{"id": MODEL, "harness": "candle", "vram_mb": 600}]
    with fake_neuron(node), workbench(tmp_path) as bench:
        cortex = bench.cortex({"old": node.url}, models, {"gpt-4": MODEL})
        asking = Asking(cortex, CHAT, stream=False)
        (row,) = eventually(lambda: rows(cortex))
        assert (row["phase"], row["model"], row["attempts"]) == ("waiting", MODEL, 0)
        assert "node" not in row

        assert cancel(cortex, "mine-1").status_code == 200
        asking.join(2)

        assert asking.status == 499
        assert "x-cortex-node" not in asking.headers


def test_who_is_not_in_flight_cannot_be_cancelled(cortex: Daemon) -> None:
    """404 with a code of its own, in an envelope."""
    answer = cancel(cortex, "no/such one")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "request_not_found"


def test_two_of_one_name_are_cancelled_together(cortex: Daemon) -> None:
    """Names are the clients' own, and some use one for a whole conversation."""
    asking = [Asking(cortex, CHAT, stream=True) for _ in range(2)]
    eventually(lambda: [one["phase"] for one in rows(cortex)] == ["answering"] * 2)

    assert cancel(cortex, "mine-1").json()["count"] == 2
    for one in asking:
        one.join(5)
        assert "request_cancelled" in one.text


def test_only_the_last_ended_are_kept(cortex: Daemon) -> None:
    """A bound on memory, the latest first, the sum of all beside them."""
    for number in range(KEEP_ENDED + 5):
        cortex.http.post(
            f"{cortex.url}{CHAT}", json={"model": ""}, headers={"x-request-id": f"n{number}"}
        )

    told = cortex.http.get(f"{cortex.url}/fleet/requests").json()

    assert [one["id"] for one in told["ended"]] == [
        f"n{number}" for number in range(KEEP_ENDED + 4, 4, -1)
    ]
    assert told["totals"]["requests"] == told["totals"]["errors"] == KEEP_ENDED + 5


def test_an_answer_says_where_it_came_from(tmp_path: Any) -> None:
    """Node, reason and our own time in headers, streamed or not, in success and in failure."""
    node = FakeNeuron(sizes={MODEL: 600})
    node.hold(MODEL)
    models = [{"id": MODEL, "harness": "candle", "vram_mb": 600}]
    with fake_neuron(node), workbench(tmp_path) as bench:
        cortex = bench.cortex({"old": node.url}, models)
        whole = cortex.http.post(f"{cortex.url}{CHAT}", json=say(MODEL))
        node.reply = lambda handler: handler.send({"error": {"message": "no"}}, 400)
        failed = cortex.http.post(f"{cortex.url}{CHAT}", json=say(MODEL, stream=True))
        node.reply = lambda handler: handler.stream(frame(delta("x", finish_reason="stop")))
        streamed = cortex.http.post(f"{cortex.url}{CHAT}", json=say(MODEL, stream=True))

    for answer in (whole, streamed, failed):
        assert answer.headers["x-cortex-node"] == "old"
        assert answer.headers["x-cortex-decision"]
        assert 0 <= float(answer.headers["x-cortex-overhead-ms"]) < 1000
    assert [one.status_code for one in (whole, streamed, failed)] == [200, 200, 400]


def test_a_cancelled_stream_stops_a_real_engine(bench: Workbench, demo_model: Any) -> None:
    """The engine is free within a quarter of a second, and so is the seat."""
    neuron = bench.neuron()
    cortex = bench.cortex({"n1": neuron.url}, [entry("demo", demo_model, options={"parallel": 1})])
    cortex.http.post(f"{cortex.url}{CHAT}", json=say("demo"))
    talk = Talk(cortex, "demo", **LONG)
    talk.under_way()
    (row,) = rows(cortex)
    assert row["tokens"] > 2

    assert cancel(cortex, row["id"]).status_code == 200
    began = time.monotonic()
    eventually(lambda: in_flight(neuron, "demo") == 0)
    took = time.monotonic() - began
    told = talk.end()

    assert took < STOPPED_WITHIN_SECS
    assert [error["code"] for error in told.errors()] == ["request_cancelled"]
    assert not told.done
    began = time.monotonic()
    assert cortex.http.post(f"{cortex.url}{CHAT}", json=say("demo", max_tokens=1)).is_success
    assert time.monotonic() - began < 2  # 400 tokens take longer
