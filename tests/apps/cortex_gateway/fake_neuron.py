"""A node of another make, in a thread: few routes, old fields, faults on demand.

It speaks what the oldest known implementation of the node contract speaks: no `/events`, flat
errors, a load that answers only when it is done, no `servable`, no `boot_id`.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[["Handler"], None]


@dataclass(slots=True)
class FakeNeuron:
    """What the node knows, and what was asked of it."""

    total_mb: int = 1000
    resident: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    reply: Reply | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    load_reply: Reply | None = None
    load_secs: float = 0.0
    health: dict[str, Any] = field(default_factory=dict)
    url: str = ""

    def hold(self, model: str, status: str = "loaded", **more: Any) -> None:
        """Put a model there."""
        self.resident[model] = {
            "id": model,
            "harness": "candle",
            "status": status,
            "devices": [0],
            "vram_used_mb": self.sizes.get(model),
            **more,
        }


class Handler(BaseHTTPRequestHandler):
    """Answers like an old node."""

    protocol_version = "HTTP/1.1"
    node: FakeNeuron

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its signature
        """Stay silent."""

    def do_GET(self) -> None:
        """Serve discovery, health and the list of models."""
        node = self.node
        match self.path:
            case "/discovery":
                self.send(
                    {
                        "hostname": "old",
                        "devices": [
                            {
                                "index": 0,
                                "name": "GPU",
                                "vram_total_mb": node.total_mb,
                                "compute_capability": "8.9",
                            }
                        ],
                        "harnesses": ["candle", "llamacpp"],
                    }
                )
            case "/health":
                used = sum(node.sizes.get(model, 0) for model in node.resident)
                self.send(
                    {
                        "uptime_secs": 1,
                        "devices": [
                            {"index": 0, "vram_used_mb": used, "vram_free_mb": node.total_mb - used}
                        ],
                        **node.health,
                    }
                )
            case "/models":
                self.send(list(node.resident.values()))
            case _:
                self.send({"error": "no such route"}, 404)

    def do_POST(self) -> None:
        """Serve loads, unloads and inference."""
        node = self.node
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        node.bodies.append(body)
        node.headers.append({key.lower(): value for key, value in self.headers.items()})
        match self.path:
            case "/models/load":
                node.asked.append(f"load {body['model_id']} evict {','.join(body['evict']) or '-'}")
                if node.load_reply is not None:
                    node.load_reply(self)
                    return
                time.sleep(node.load_secs)  # an old node answers when it is done
                for victim in body["evict"]:
                    node.resident.pop(victim, None)
                node.hold(body["model_id"])
                self.send({"status": "loaded"})
            case "/models/unload":
                node.asked.append(f"unload {body['model_id']}")
                node.resident.pop(body["model_id"], None)
                self.send({"status": "unloaded"})
            case _ if node.reply is not None:
                node.asked.append(f"infer {body['model']}")
                node.reply(self)
            case _:
                node.asked.append(f"infer {body['model']}")
                self.send(completion(body["model"]))

    def send(self, value: Any, status: int = 200, **headers: str) -> None:
        """Answer with JSON."""
        raw = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(raw)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(raw)

    def stream(self, *chunks: bytes, cut: bool = False) -> None:
        """Answer with a stream; `cut` breaks the connection before its end."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        if cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


def completion(model: str) -> dict[str, Any]:
    """A whole answer."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


@contextmanager
def fake_neuron(node: FakeNeuron | None = None) -> Iterator[FakeNeuron]:
    """Serve `node` on a free loopback port."""
    known = node or FakeNeuron()
    handler = type("NodeHandler", (Handler,), {"node": known})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        known.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield known
        finally:
            server.shutdown()
            thread.join()
