"""A daemon for `up` to start: `fake_daemon.py KIND MODE JOURNAL serve -c FILE --exit-with-stdin`.

KIND is `neuron` or `cortex`; MODE says what becomes of it. It writes what happens to it to JOURNAL.
"""

import json
import signal
import sys
import threading
import time
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cortex_core.commands import end_with_stdin

KIND, MODE, JOURNAL = sys.argv[1:4]
SETTINGS = tomllib.loads(Path(sys.argv[sys.argv.index("-c") + 1]).read_text())
TOTAL = 1_000_000


def note(what: str) -> None:
    """Add a line to the journal."""
    with Path(JOURNAL).open("a") as journal:
        journal.write(f"{KIND} {what}\n")


class Neuron:
    """Loads its default model in a few looks, or fails, as MODE says."""

    looks = 0
    port = int(SETTINGS.get("port", 0))

    def answer(self, path: str) -> object:
        """Return the body for `path`."""
        if path == "/health":
            return {"uptime_secs": 1.0}
        self.looks += 1
        return [self._row(model["model_id"]) for model in SETTINGS.get("default_models", ())]

    def _row(self, model: str) -> dict[str, Any]:
        if MODE == "fails" and self.looks > 2:
            return {"id": model, "status": "failed", "error": "the disk is full"}
        if self.looks > 4 and MODE != "slow":
            return {"id": model, "status": "loaded"}
        done = min(self.looks * 250_000, TOTAL)
        phase = {"phase": "fetching", "done_bytes": done, "total_bytes": TOTAL}
        return {"id": model, "status": "loading", "progress": phase}


class Cortex:
    """Sees the model at once."""

    port = int(SETTINGS.get("gateway", {}).get("listen", ":0").rpartition(":")[2])

    def answer(self, path: str) -> object:
        """Return the body for `path`."""
        if path == "/health":
            return {"status": "ok"}
        catalogue = tomllib.loads(Path(SETTINGS["models_config"]).read_text())
        return {"data": [{"id": one["id"], "loaded": True} for one in catalogue["models"]]}


def main() -> None:
    """Serve until a signal comes."""
    sys.stderr.write(f"{KIND} says hello\n")
    if MODE == "breaks":
        sys.exit(5)
    daemon = Neuron() if KIND == "neuron" else Cortex()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            payload = json.dumps(daemon.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

    def leave(*_: object) -> None:
        note("asked to end")
        if MODE == "stubborn":
            return
        time.sleep(0.1)
        note("ended")
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, lambda *_: note("interrupted by the terminal"))
    assert "--exit-with-stdin" in sys.argv
    end_with_stdin()
    server = ThreadingHTTPServer(("127.0.0.1", daemon.port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    note("started")
    if MODE == "dies":
        time.sleep(1.5)
        sys.stderr.write("out of luck\n")
        sys.exit(9)
    while True:
        signal.pause()


main()
