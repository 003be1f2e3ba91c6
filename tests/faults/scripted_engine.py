"""An engine's child process that does as it is told: it fails in every way that a real one can.

Its task says what happens while it loads. What happens while it answers is the first word of a
prompt; any other prompt is a story, a word each 20 ms. Memory that it holds on a GPU is a claim on
the machine of `tests.fake_nvml`, and gone with the process.
"""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cortex_neuron.engine_child import (
    die_with_parent,
    leave_with_stdin,
    read_task,
    say,
    take_stdout,
)

TOKEN_SECS = 0.02
OUT_OF_MEMORY = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
ILLEGAL = "RuntimeError: CUDA error: an illegal memory access was encountered"
#: Held by whoever makes the process deaf.
DEAF = threading.Lock()
#: Set while the process says of itself that it hangs.
STUCK = threading.Event()


class Handler(BaseHTTPRequestHandler):
    """Health, and chats that are streamed."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer `/health`, unless the process plays dead."""
        with DEAF:
            self.send_response(500 if STUCK.is_set() else 200)
            self.send_header("content-length", "0")
            self.end_headers()

    def do_POST(self) -> None:
        """Answer a chat, or fail on it."""
        with DEAF:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        words = body["messages"][-1]["content"].split()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        fail = FAILURES.get(words[0])
        if fail is not None:
            self._token("first")
            fail(self, *words[1:])
        for number in range(body.get("max_tokens", 8)):
            self._token(f"word{number}")
            time.sleep(TOKEN_SECS)
        self._frame({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {"prompt_tokens": 1, "completion_tokens": 8, "total_tokens": 9}
        self._frame({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def error(self, message: str) -> None:
        """End the stream in an error event."""
        self._frame({"error": {"message": message, "type": "server_error", "code": 500}})
        raise BrokenPipeError

    def _token(self, word: str) -> None:
        with DEAF:
            delta = {"content": f"{word} "}
        while STUCK.is_set():
            time.sleep(TOKEN_SECS)
        self._frame({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})

    def _frame(self, value: dict[str, Any]) -> None:
        whole = {"id": "x", "object": "chat.completion.chunk", "model": "m", **value}
        self.wfile.write(f"data: {json.dumps(whole)}\n\n".encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """A server that says nothing of clients who left."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Go on."""


def tell(line: str) -> None:
    """Write a line to stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def burn(secs: float) -> None:
    """Use a processor for so long."""
    until = time.monotonic() + secs
    while time.monotonic() < until:
        pass


def die_of(line: str) -> None:
    """Say a last word and end."""
    tell(line)
    os._exit(1)


def fail_one(handler: Handler) -> None:
    """Fail one request and live on."""
    tell(OUT_OF_MEMORY)
    handler.error("out of memory")


def fall_silent(_: Handler) -> None:
    """Let the whole process wait for a lock that nobody gives back."""
    DEAF.acquire()
    DEAF.acquire()


def live_on_poisoned(_: Handler) -> None:
    """Say that CUDA has failed and wait for it, as a thread in a driver does."""
    tell(ILLEGAL)
    threading.Event().wait()


def flood(_: Handler) -> None:
    """Write 20 MB of warnings."""
    for _line in range(200):
        sys.stderr.write(("x" * 99 + "\n") * 1000)
    sys.stderr.flush()


FAILURES: dict[str, Any] = {
    "segfault": lambda _: ctypes.string_at(0),
    "abort": lambda _: os.abort(),
    "exit": lambda _: os._exit(3),
    "freeze": lambda _: os.kill(os.getpid(), signal.SIGSTOP),
    "deadlock": fall_silent,
    "stuck": lambda _: STUCK.set(),
    "poison": live_on_poisoned,
    "oom-dies": lambda _: die_of(OUT_OF_MEMORY),
    "oom-lives": fail_one,
    "flood": flood,
    "prefill": lambda _, secs: burn(float(secs)),
    "gpu-prefill": lambda _, secs: time.sleep(float(secs)),
}


def load(task: dict[str, Any], events: Any) -> None:
    """Take memory, step by step, and do what the script says of it."""
    script = task["script"]
    stubborn = script.get("ignores_sigterm")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else signal.SIG_DFL)
    steps = 4
    for done in range(steps):
        say(events, {"event": "progress", "done": done, "total": steps})
        claim(task, task["claim_mb"] * (done + 1) // steps)
        time.sleep(script.get("load_secs", 0) / steps)
        if done == 1:
            match script.get("load"):
                case "segfault":
                    ctypes.string_at(0)
                case "never":
                    threading.Event().wait()
                case "oom":
                    die_of(OUT_OF_MEMORY)
                case "told":
                    say(events, {"event": "failed", "error": "it does not like the file"})
                    os._exit(1)


def claim(task: dict[str, Any], whole_mb: int) -> None:
    """Hold memory on each of the devices."""
    folder = os.environ.get("FAKE_NVML_STATE")
    for number in task["devices"] if folder else ():
        share = whole_mb // len(task["devices"])
        Path(f"{folder}.claims", f"gpu{number}-{os.getpid()}").write_text(str(share))


def main() -> None:
    """Live an engine's life."""
    die_with_parent()
    events = take_stdout()
    task = read_task()
    if task is None:
        return
    watcher = leave_with_stdin()
    load(task, events)
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    seen = os.environ["CUDA_VISIBLE_DEVICES"]
    say(events, {"event": "ready", "url": url, "devices_seen": seen})
    watcher.join()


if __name__ == "__main__":
    main()
