"""A small server that speaks OpenAI, for a process of its own: `python openai_server.py PORT`.

`POST /control` with JSON changes what it says: `models`, `token`, `health`, `metrics`, `refuse`
(status and body of every chat). It ends when its stdin does.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STATE: dict[str, Any] = {
    "models": [{"id": "theirs", "object": "model", "max_model_len": 4096}],
    "token": None,
    "health": 200,
    "metrics": None,
    "refuse": None,
}


class Handler(BaseHTTPRequestHandler):
    """Answers from the state."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the standard library's name
        """Health, models, metrics."""
        match self.path:
            case "/health":
                self._send(STATE["health"], b"")
            case "/metrics" if STATE["metrics"] is not None:
                self._send(200, STATE["metrics"].encode(), "text/plain")
            case "/v1/models" if self._allowed():
                self._send(200, json.dumps({"object": "list", "data": STATE["models"]}).encode())
            case "/v1/models":
                self._send(401, b'{"error":"Unauthorized"}')
            case _:
                self._send(404, b'{"detail":"Not Found"}')

    def do_POST(self) -> None:  # the standard library's name
        """Control, and chats that are streamed."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
        if self.path == "/control":
            STATE.update(body)
            self._send(200, b"{}")
        elif not self._allowed():
            self._send(401, b'{"error":"Unauthorized"}')
        elif STATE["refuse"] is not None:
            status, value = STATE["refuse"]
            self._send(status, json.dumps(value).encode())
        else:
            self._chat(body)

    def _chat(self, body: dict[str, Any]) -> None:
        words = body["messages"][-1]["content"].split()
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]}
            for word in words
        ]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {"prompt_tokens": 1, "completion_tokens": len(words), "total_tokens": 1}
        chunks.append({"choices": [], "usage": usage})
        named = {"id": "x", "object": "chat.completion.chunk", "model": body["model"]}
        frames = [f"data: {json.dumps({**named, **chunk})}\n\n" for chunk in chunks]
        self._send(200, ("".join(frames) + "data: [DONE]\n\n").encode(), "text/event-stream")

    def _allowed(self) -> bool:
        token = STATE["token"]
        return token is None or self.headers.get("authorization") == f"Bearer {token}"

    def _send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Say nothing."""


def main() -> None:
    """Serve until stdin ends."""
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
