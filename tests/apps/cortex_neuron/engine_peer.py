"""A server that a node is attached to, and that answers chats with the very bytes a test says."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "theirs"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return a chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(slots=True)
class EnginePeer:
    """Where it is, what it was asked, and how it answers: `reply` writes to the raw socket."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    reply: Callable[[socket.socket], None] = lambda _: None


@contextmanager
def engine_peer() -> Iterator[EnginePeer]:
    """Serve for as long as the block lasts."""
    peer = EnginePeer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            models = {"object": "list", "data": [{"id": MODEL, "object": "model"}]}
            body = json.dumps(models).encode() if self.path == "/v1/models" else b"{}"
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            peer.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.close_connection = True
            peer.reply(self.connection)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its signature
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    peer.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
