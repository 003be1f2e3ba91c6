"""A client that reads slowly slows the node down, not the gateway's memory up."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.apps.cortex_gateway.fake_neuron import FakeNeuron, Handler, fake_neuron
from tests.fleet.conversations import CHAT, say
from tests.fleet.processes import Daemon, eventually, workbench
from tests.libs.cortex_dialects.streams import DONE, ROLE, delta, frame

pytestmark = pytest.mark.fleet

#: What the kernel keeps for two connections at most, and what we do for one.
BOUND_BYTES = 24 * 1024 * 1024
FRAMES = 2000
FRAME = frame(delta("x" * 60_000))


class Flood:
    """A reply of 120 MB that counts what got out."""

    def __init__(self) -> None:
        self.sent = 0
        self.broken = False

    def __call__(self, handler: Handler) -> None:
        """Answer."""
        try:
            handler.stream(frame(ROLE), cut=True)
            for _ in range(FRAMES):
                handler.wfile.write(b"%x\r\n%b\r\n" % (len(FRAME), FRAME))
                self.sent += len(FRAME)
            last = frame(delta(None, finish_reason="stop")) + DONE
            handler.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last))
        except OSError:
            self.broken = True


@pytest.fixture
def flood() -> Flood:
    """What the node answers."""
    return Flood()


@pytest.fixture
def cortex(tmp_path: Path, flood: Flood) -> Iterator[Daemon]:
    """A gateway in front of it."""
    node = FakeNeuron(sizes={"org/a": 600}, reply=flood)
    node.hold("org/a")
    models = [{"id": "org/a", "harness": "candle", "vram_mb": 600}]
    with fake_neuron(node), workbench(tmp_path) as bench:
        yield bench.cortex({"old": node.url}, models, observation={"poll_secs": 0.1})


def ask(cortex: Daemon, path: str, body: dict[str, Any]) -> socket.socket:
    """Ask for a stream over a bare connection with a small window, and read only its head."""
    url = urlsplit(cortex.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.connect((url.hostname, url.port))
    raw = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    client.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(raw) + raw)
    assert client.recv(17).startswith(b"HTTP/1.1 200 OK")
    return client


def stalled(flood: Flood) -> bool:
    """Tell whether nothing has got out for a while."""
    before = flood.sent
    deadline = time.monotonic() + 0.4
    while time.monotonic() < deadline:
        if flood.sent != before:
            return False
        time.sleep(0.02)  # the pause of a poll, bounded above
    return before > 0


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
def test_a_client_that_does_not_read_stops_the_node(
    cortex: Daemon, flood: Flood, path: str
) -> None:
    """What is under way stays bounded; when the client is gone, the node hears of it."""
    memory = psutil.Process(cortex.pid).memory_info().rss
    client = ask(cortex, path, say("org/a", stream=True))
    eventually(lambda: stalled(flood), within=20)

    assert flood.sent < BOUND_BYTES
    assert psutil.Process(cortex.pid).memory_info().rss - memory < BOUND_BYTES
    client.close()
    eventually(lambda: flood.broken, within=5)


def test_a_client_that_reads_late_gets_everything(cortex: Daemon, flood: Flood) -> None:
    """Nothing is lost by waiting, and the connection can be used again."""
    with ask(cortex, CHAT, say("org/a", stream=True)) as client:
        eventually(lambda: stalled(flood), within=20)
        client.settimeout(30)
        text, tail = 0, b""
        while not tail.endswith(b"0\r\n\r\n"):
            part = client.recv(1 << 20)
            assert part
            text += part.count(b"x")
            tail = (tail + part)[-64:]

        assert text >= FRAMES * 60_000
        assert b"[DONE]" in tail
        client.sendall(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(64).startswith(b"HTTP/1.1 200 OK")
