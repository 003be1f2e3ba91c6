"""What a node makes of an engine's stream: the bytes of its clients, errors and ends included."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.apps.cortex_neuron.engine_peer import END, HEAD, MODEL, EnginePeer, chunk, engine_peer
from tests.fleet.conversations import CHAT, ask, row, say, status
from tests.fleet.processes import Daemon, eventually, workbench
from tests.libs.cortex_dialects.streams import DONE, ROLE, delta, frame

pytestmark = pytest.mark.fleet

TOKENS = [frame(delta(word)) for word in ("The", " sea", " is", " grey", ".")]
FINISH = frame(delta(None, finish_reason="stop"))
USAGE_VALUE = {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9}
USAGE = frame({"choices": [], "usage": USAGE_VALUE})
STREAM = [frame(ROLE), *TOKENS, FINISH, USAGE, DONE]


@pytest.fixture(scope="module")
def peer() -> Iterator[EnginePeer]:
    """What the node is attached to."""
    with engine_peer() as made:
        yield made


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the token that the node obeys."""
    path = tmp_path_factory.mktemp("secret") / "token"
    path.write_text("node-token\n")
    return path


@pytest.fixture(scope="module")
def neuron(
    tmp_path_factory: pytest.TempPathFactory, peer: EnginePeer, token: Path
) -> Iterator[Daemon]:
    """A node that is attached to it, and obeys only who has its token."""
    server = {"name": "peer", "url": f"{peer.url}/v1"}
    with workbench(tmp_path_factory.mktemp("node")) as bench:
        node = bench.neuron(
            harness={"openai": {"look_secs": 0.1, "servers": [server]}}, token_file=str(token)
        )
        node.http.headers["authorization"] = "Bearer node-token"
        eventually(lambda: status(node, MODEL) == "loaded")
        yield node


def told(neuron: Daemon, **more: Any) -> bytes:
    """Return the body of a streamed answer."""
    response = neuron.http.post(f"{neuron.url}{CHAT}", json=say(MODEL, stream=True, **more))
    assert (response.status_code, response.headers["content-type"]) == (
        200,
        "text/event-stream; charset=utf-8",
    )
    return response.content


def one_by_one(*frames: bytes, end: bytes = END) -> Any:
    """Return a reply that writes each frame as a chunk of its own, so that each arrives alone."""

    def reply(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(HEAD)
        for one in frames:
            client.sendall(chunk(one))
            time.sleep(0.002)  # the pace of an engine
        client.sendall(end)

    return reply


def all_at_once(*frames: bytes) -> Any:
    """Return a reply that writes all of it together."""
    return lambda client: client.sendall(HEAD + b"".join(map(chunk, frames)) + END)


def cut_anywhere(*frames: bytes) -> Any:
    """Return a reply whose chunks end inside of frames, and its writes inside of chunks."""
    body = b"".join(frames)
    raw = b"".join(chunk(body[at : at + 37]) for at in range(0, len(body), 37)) + END

    def reply(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(HEAD)
        for at in range(0, len(raw), 101):
            client.sendall(raw[at : at + 101])
            time.sleep(0.001)  # the pace of an engine

    return reply


@pytest.mark.parametrize("replying", [one_by_one, all_at_once, cut_anywhere])
def test_a_stream_passes_as_it_came(neuron: Daemon, peer: EnginePeer, replying: Any) -> None:
    """Byte for byte, however it arrives, to a client that is told whose answer it is."""
    peer.reply = replying(*STREAM)

    assert told(neuron) == b"".join(STREAM)
    assert peer.bodies[-1]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("replying", [one_by_one, all_at_once])
def test_usage_has_a_chunk_of_its_own(neuron: Daemon, peer: EnginePeer, replying: Any) -> None:
    """Also when the engine tells it beside the finish."""
    last = frame({**delta(None, finish_reason="stop"), "usage": USAGE_VALUE})
    peer.reply = replying(frame(ROLE), *TOKENS, last, DONE)

    *_, usage, done, rest = told(neuron).split(b"\n\n")

    assert (done, rest) == (b"data: [DONE]", b"")
    value = json.loads(usage.removeprefix(b"data: "))
    assert (value["choices"], value["usage"]["completion_tokens"]) == ([], 5)


@pytest.mark.parametrize(
    ("end", "code"),
    [(END, "upstream_unreachable"), (b"", "upstream_unreachable"), (b"zz\r\n", "upstream")],
    ids=["ended early", "connection lost", "nonsense"],
)
def test_a_broken_stream_ends_in_an_error_event(
    neuron: Daemon, peer: EnginePeer, end: bytes, code: str
) -> None:
    """What came before it is there, what is half there is not, and the connection lives on."""
    peer.reply = one_by_one(frame(ROLE), *TOKENS, TOKENS[0][:20], end=end)
    body = told(neuron)

    assert body.startswith(frame(ROLE) + b"".join(TOKENS) + b"data: {")
    last = body.removeprefix(frame(ROLE) + b"".join(TOKENS))
    assert last.count(b"data: ") == 1
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"].startswith(code)


def test_the_engines_own_error_event_is_the_end(neuron: Daemon, peer: EnginePeer) -> None:
    """No second one is added to it."""
    failed = frame({"error": {"message": "no more", "type": "api_error"}})
    peer.reply = one_by_one(frame(ROLE), *TOKENS, failed)

    assert told(neuron) == frame(ROLE) + b"".join(TOKENS) + failed


def test_a_whole_answer_is_the_fold_of_a_stream(neuron: Daemon, peer: EnginePeer) -> None:
    """With the time of its first token, and with the request's name."""
    peer.reply = cut_anywhere(*STREAM)
    whole = ask(neuron, MODEL)

    assert whole.json()["choices"][0]["message"]["content"] == "The sea is grey."
    assert whole.json()["usage"] == USAGE_VALUE
    assert float(whole.headers["x-neuron-ttft-ms"]) > 0
    assert whole.headers["x-request-id"]


@pytest.mark.parametrize("end", [END, b"", b"zz\r\n"])
def test_a_whole_answer_that_broke_is_none(neuron: Daemon, peer: EnginePeer, end: bytes) -> None:
    """It has a status that says so."""
    peer.reply = one_by_one(frame(ROLE), *TOKENS, end=end)

    assert ask(neuron, MODEL).status_code == 503


def test_what_a_stream_took_is_measured(neuron: Daemon, peer: EnginePeer) -> None:
    """The rate of its tokens, when the model was last used, and that its seat is free."""
    peer.reply = one_by_one(*STREAM)
    told(neuron)
    before, used = measured(neuron), (row(neuron, MODEL) or {})["last_used"]
    told(neuron)
    after = measured(neuron)

    # A mean that takes in three tenths of what is new. Four tokens follow the first.
    rate = before["tok_s_decode"] + (after["tok_s_decode"] - before["tok_s_decode"]) / 0.3
    assert 10 < rate < 2000
    assert after["tok_s_prefill"] > 0
    assert after["in_flight"] == 0
    assert (row(neuron, MODEL) or {})["last_used"] > used


def measured(neuron: Daemon) -> dict[str, Any]:
    """Return what the node says of the model's load and speed."""
    models = neuron.http.get(f"{neuron.url}/health").json()["models"]
    return next(dict(one) for one in models if one["id"] == MODEL)


def test_embeddings_pass_as_they_came(neuron: Daemon, peer: EnginePeer) -> None:
    """As the engine has them."""
    body = b'{"data": [{"embedding": [0.5]}]}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    peer.reply = lambda client: client.sendall(head % len(body) + body)
    answer = neuron.http.post(f"{neuron.url}/v1/embeddings", json={"model": MODEL, "input": "x"})

    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", [CHAT, f"{CHAT}/", "/v1/completions", "/v1/embeddings", "/models"])
def test_nobody_is_obeyed_without_the_token(neuron: Daemon, peer: EnginePeer, path: str) -> None:
    """Inference is no way around it."""
    asked = len(peer.bodies)
    with httpx.Client(trust_env=False) as stranger:
        method = "GET" if path == "/models" else "POST"
        answer = stranger.request(method, f"{neuron.url}{path}", json=say(MODEL))

    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert len(peer.bodies) == asked


class Flood:
    """An answer of 60 MB that counts what got out."""

    def __init__(self) -> None:
        self.sent = 0
        self.broken = False

    def __call__(self, client: socket.socket) -> None:
        """Answer."""
        big = chunk(frame(delta("x" * 60_000)))
        try:
            client.sendall(HEAD + chunk(frame(ROLE)))
            for _ in range(1000):
                client.sendall(big)
                self.sent += len(big)
            client.sendall(chunk(FINISH) + chunk(DONE) + END)
        except OSError:
            self.broken = True

    def stalled(self) -> bool:
        """Tell whether nothing has got out for a while."""
        before = self.sent
        time.sleep(0.2)  # the pause of a poll
        return before > 0 and self.sent == before


class Trickle:
    """An answer of a token each 2 ms that does not end by itself."""

    broken = False

    def __call__(self, client: socket.socket) -> None:
        """Answer."""
        try:
            one_by_one(frame(ROLE), *TOKENS * 2000)(client)
        except OSError:
            self.broken = True


def ask_barely(neuron: Daemon) -> socket.socket:
    """Ask for a stream over a bare connection with a small window, and read only its head."""
    url = urlsplit(neuron.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.settimeout(10)
    client.connect((url.hostname, url.port))
    raw = json.dumps(say(MODEL, stream=True)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer node-token\r\n"
    client.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(raw) + raw)
    assert client.recv(15) == b"HTTP/1.1 200 OK"
    return client


def test_a_client_that_does_not_read_stops_the_engine(neuron: Daemon, peer: EnginePeer) -> None:
    """Little is kept for it, and all goes on when it reads again."""
    flood = peer.reply = Flood()
    with ask_barely(neuron) as client:
        eventually(flood.stalled)
        sent = flood.sent
        taken = 0
        while taken < sent + 1_000_000:
            taken += len(client.recv(1 << 20))
    eventually(lambda: flood.broken)

    assert sent < 24 * 1024 * 1024
    eventually(lambda: measured(neuron)["in_flight"] == 0)


@pytest.mark.parametrize("reply", [Flood, Trickle])
def test_the_engines_request_ends_when_the_client_leaves(
    neuron: Daemon, peer: EnginePeer, reply: type[Flood | Trickle]
) -> None:
    """Within 250 ms, and its seat is free: while tokens come, and while a full client holds up."""
    answering = peer.reply = reply()
    with ask_barely(neuron) as client:
        if isinstance(answering, Flood):
            eventually(answering.stalled)
        else:
            assert client.recv(1000)
    left = time.monotonic()
    eventually(lambda: answering.broken, every=0.005)
    freed = time.monotonic() - left

    assert freed < 0.25
    eventually(lambda: measured(neuron)["in_flight"] == 0)
