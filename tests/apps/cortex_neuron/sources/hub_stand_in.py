"""A small Hugging Face hub on a local port: one repository, branches, ranges, and bad days."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REPO = "org/repo"
LARGE = (".safetensors", ".gguf")


def commit_of(branch: str) -> str:
    """Return the commit that a branch is at."""
    return hashlib.sha1(branch.encode(), usedforsecurity=False).hexdigest()


@dataclass
class Hub:
    """The hub, and what it was asked for. `branches` are files by name, by branch.

    `break_after`: the next answers end after so many bytes. `stall_after`: a file stops there
    until `go_on`. `lie`: contents are not as described. `deny`: the status with which every file is
    refused. `claim`: how long all files are said to be.
    """

    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    break_after: list[int] = field(default_factory=list)
    stall_after: int | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
    lie: bool = False
    deny: int | None = None
    claim: int | None = None
    ranges: bool = True
    url: str = ""
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        """What is on the main branch."""
        return self.branches["main"]

    @property
    def fetched(self) -> list[tuple[str, str | None]]:
        """The files that were asked for, with the range."""
        return [
            (path.rpartition("/")[2], range_) for path, range_ in self.asked if "resolve" in path
        ]

    def describe(self, revision: str) -> dict[str, Any] | None:
        """Return what the hub says of a branch or commit."""
        for branch, files in self.branches.items():
            if revision in (branch, commit_of(branch)):
                return {
                    "id": REPO,
                    "sha": commit_of(branch),
                    "siblings": [self._sibling(name, data) for name, data in files.items()],
                }
        return None

    def content(self, commit: str, name: str) -> bytes | None:
        """Return a file."""
        for branch, files in self.branches.items():
            if commit == commit_of(branch) and name in files:
                return files[name][::-1] if self.lie else files[name]
        return None

    def _sibling(self, name: str, data: bytes) -> dict[str, Any]:
        git = hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False)
        said: dict[str, Any] = {
            "rfilename": name,
            "size": self.claim or len(data),
            "blobId": git.hexdigest(),
        }
        if name.endswith(LARGE):
            digest = hashlib.sha256(data).hexdigest()
            said["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
        return said


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append((path, self.headers.get("range")))
        if path == f"/api/models/{REPO}/refs":
            names = [
                {"name": one, "ref": f"refs/heads/{one}", "targetCommit": commit_of(one)}
                for one in self.hub.branches
            ]
            self._json({"branches": names, "tags": [], "converts": []})
        elif path.startswith(f"/api/models/{REPO}"):
            said = self.hub.describe(path.partition("/revision/")[2] or "main")
            if said is None:
                self._refuse(404, "RevisionNotFound")
            else:
                self._json(said)
        elif path.startswith(f"/{REPO}/resolve/"):
            self._file(*path.partition("/resolve/")[2].split("/", 1))
        else:
            self._refuse(404, "RepoNotFound")

    def _json(self, said: Any) -> None:
        self._answer(200, json.dumps(said).encode(), {})

    def _refuse(self, status: int, code: str) -> None:
        self._answer(status, b"", {"X-Error-Code": code})

    def _file(self, commit: str, name: str) -> None:
        data = self.hub.content(commit, name)
        if self.hub.deny is not None or data is None:
            self._refuse(self.hub.deny or 404, "EntryNotFound")
            return
        start = int((self.headers.get("range") or "bytes=0-")[6:].partition("-")[0])
        if not start or not self.hub.ranges:
            self._answer(200, data, {})
            return
        place = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._answer(206, data[start:], {"Content-Range": place})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if "resolve" in self.path and self.hub.break_after:
            body = body[: self.hub.break_after.pop(0)]
            self.close_connection = True
        if "resolve" in self.path and self.hub.stall_after is not None:
            self.wfile.write(body[: self.hub.stall_after])
            self.hub.go_on.wait(20)
            body = b""
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Have the hub answer until the end."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield hub
        finally:
            hub.go_on.set()
            server.shutdown()
            thread.join()
