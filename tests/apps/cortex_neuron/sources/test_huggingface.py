"""The hub's cache, laid out by hand, and a small hub that answers on a local port."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources import FetchCancelled, Fetching, HuggingFaceSource, find, resolve
from cortex_neuron.sources.huggingface import cache_folder

COMMIT = "c" * 40
NOBODY = "http://127.0.0.1:9"


def lay(cache: Path, *names: str) -> Path:
    """Lay out a cached repository `org/repo` and return its snapshot."""
    repo = cache / "models--org--repo"
    snapshot = repo / "snapshots" / COMMIT
    for name in names:
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(b"GGUF")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.fixture(name="offline")
def _offline(tmp_path: Path) -> Fetching:
    environment = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": NOBODY}
    return Fetching(cache_dir=tmp_path / "cache", environment=environment)


def test_a_hub_out_of_reach_is_no_failure_with_a_warm_cache(
    tmp_path: Path, offline: Fetching
) -> None:
    """By file, by quant, by revision: the cache answers."""
    snapshot = lay(tmp_path / "hub", "m-Q4_0.gguf", "m-Q8_0.gguf")
    by_file = HuggingFaceSource(repo="org/repo", file="m-Q4_0.gguf")
    by_commit = HuggingFaceSource(repo="org/repo", revision=COMMIT)

    assert resolve(by_file, None, offline) == snapshot / "m-Q4_0.gguf"
    assert resolve(HuggingFaceSource(repo="org/repo"), "q8_0", offline) == snapshot / "m-Q8_0.gguf"
    assert resolve(by_commit, "q4_0", offline) == snapshot / "m-Q4_0.gguf"


def test_offline_by_choice_asks_nobody(tmp_path: Path) -> None:
    """HF_HUB_OFFLINE goes straight to the cache."""
    snapshot = lay(tmp_path / "home/hub", "m.gguf")
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    fetching = Fetching(cache_dir=tmp_path, environment=environment)

    assert resolve(HuggingFaceSource(repo="org/repo"), None, fetching) == snapshot / "m.gguf"


@pytest.mark.parametrize("file", [None, "other.gguf", "m-00001-of-00002.gguf"])
def test_what_is_not_cached_cannot_be_had_offline(
    tmp_path: Path, offline: Fetching, file: str | None
) -> None:
    """The sentence says what to do; a shard that is missing counts as missing."""
    if file is not None:
        lay(tmp_path / "hub", "m-00001-of-00002.gguf")
    with pytest.raises(PreflightFailed, match="network") as caught:
        resolve(HuggingFaceSource(repo="org/repo", file=file), None, offline)

    assert caught.value.kind == "fetch_failed"


@dataclass
class Hub:
    """A hub with one repository, `org/repo`, over HTTP."""

    files: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    asked: bool = False


@pytest.fixture(name="hub")
def _hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.asked = True
            path = self.path.partition("?")[0]
            name = path.rpartition("/resolve/main/")[2]
            if path.startswith("/api/models/org/repo"):
                files = [{"rfilename": n, "size": len(d)} for n, d in hub.files.items()]
                self._answer(
                    json.dumps({"id": "org/repo", "sha": COMMIT, "siblings": files}).encode()
                )
            elif path.startswith("/org/repo/") and name in hub.files:
                self._answer(hub.files[name], etag=f'"{name}"', commit=COMMIT)
            else:
                self._answer(b"", status=404, code="RepoNotFound")

        def _answer(
            self,
            body: bytes,
            *,
            status: int = 200,
            etag: str = "",
            commit: str = "",
            code: str = "",
        ) -> None:
            self.send_response(status)
            named = {"ETag": etag, "X-Repo-Commit": commit, "X-Error-Code": code}
            for header, value in named.items():
                if value:
                    self.send_header(header, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield hub
        server.shutdown()
        thread.join()


def online(tmp_path: Path, hub: Hub) -> dict[str, str]:
    """Return an environment in which the hub is `hub`."""
    return {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": hub.url}


def test_all_shards_are_fetched(tmp_path: Path, hub: Hub) -> None:
    """The first shard is returned, the others lie beside it, and progress adds up."""
    hub.files = {f"m-Q4_0-0000{n}-of-00002.gguf": b"x" * 1000 * n for n in (1, 2)}
    told = list[tuple[int, int | None]]()
    fetching = Fetching(
        cache_dir=tmp_path,
        environment=online(tmp_path, hub),
        report=lambda done, total: told.append((done, total)),
    )
    path = resolve(HuggingFaceSource(repo="org/repo"), "q4_0", fetching)

    assert path.name == "m-Q4_0-00001-of-00002.gguf"
    assert path.with_name("m-Q4_0-00002-of-00002.gguf").stat().st_size == 2000
    assert told[-1] == (3000, 3000)
    assert told == sorted(told)


def test_what_the_repository_lacks_is_not_found(tmp_path: Path, hub: Hub) -> None:
    """A file, a quant and a repository that are not there."""
    hub.files = {"m-Q4_0.gguf": b"x", "m-Q8_0.gguf": b"x"}
    fetching = Fetching(cache_dir=tmp_path, environment=online(tmp_path, hub))
    kinds = []
    for source, quant in (
        (HuggingFaceSource(repo="org/repo", file="m-Q4_1.gguf"), None),
        (HuggingFaceSource(repo="org/repo"), "Q5_0"),
        (HuggingFaceSource(repo="org/none"), None),
    ):
        with pytest.raises(PreflightFailed) as caught:
            resolve(source, quant, fetching)
        kinds.append(caught.value.kind)

    assert kinds == ["not_found", "quant_not_found", "not_found"]


def test_a_fetch_nobody_wants_does_not_begin(tmp_path: Path, hub: Hub) -> None:
    """The event is looked at before the hub is asked."""
    cancelled = threading.Event()
    cancelled.set()
    fetching = Fetching(cache_dir=tmp_path, environment=online(tmp_path, hub), cancelled=cancelled)

    with pytest.raises(FetchCancelled):
        resolve(HuggingFaceSource(repo="org/repo"), None, fetching)


def test_what_is_kept_is_found_without_the_hub(tmp_path: Path, hub: Hub) -> None:
    """Nobody is asked, though somebody would answer; what is not here is None, not a failure."""
    environment = online(tmp_path, hub)
    fetching = Fetching(cache_dir=tmp_path, environment=environment)
    snapshot = lay(cache_folder(environment), "m-Q4_0.gguf")
    repository = HuggingFaceSource(repo="org/repo")

    assert find(repository, None, fetching) == snapshot / "m-Q4_0.gguf"
    assert find(repository, "q8_0", fetching) is None
    assert find(HuggingFaceSource(repo="org/other"), None, fetching) is None
    assert not hub.asked
