"""A cortex that says what it is told to, on a real socket, and remembers what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NOW = 1_700_000_000.0


class FakeCortex:
    """`answers` maps `GET /fleet` to the answers in turn; the last one stays."""

    def __init__(self, answers: dict[str, list[tuple[int, Any]]]) -> None:
        self.answers = {route: list(said) for route, said in answers.items()}
        self.asked = list[str]()
        self.endpoint = ""

    def answer(self, route: str, body: str) -> tuple[int, Any]:
        """Return the next answer to `route` and note the question."""
        self.asked.append(f"{route} {body}".strip())
        said = self.answers.get(route)
        if said is None:
            return 404, {"error": {"message": f"no route {route}", "code": "route_not_found"}}
        return said.pop(0) if len(said) > 1 else said[0]


@contextmanager
def running(answers: dict[str, list[tuple[int, Any]]]) -> Iterator[FakeCortex]:
    """Serve `answers` on a free port of loopback while the block runs."""
    fake = FakeCortex(answers)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            status, said = fake.answer(f"{self.command} {self.path}", body)
            payload = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


def node(name: str = "atlas", **said: object) -> dict[str, Any]:
    """Return a node as `/fleet` shows it."""
    return {
        "name": name,
        "endpoint": f"http://{name}:13131",
        "healthy": True,
        "last_seen": NOW - 1,
        "devices": [],
        "models": [],
        **said,
    }


def fleet(*nodes: dict[str, Any], status: str = "ok", **said: object) -> dict[str, Any]:
    """Return an answer of `/fleet`."""
    return {
        "status": status,
        "version": "1.2.3",
        "now": NOW,
        "nodes": list(nodes),
        "models": [],
        "requests": {"in_flight": 2, "waiting": 1},
        **said,
    }
