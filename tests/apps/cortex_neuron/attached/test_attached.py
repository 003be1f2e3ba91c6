"""A node that is attached to servers: real processes that come, go, freeze and refuse."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from cortex_core.settings import LlamaCppSettings
from cortex_core.wire import Device
from cortex_neuron.llamacpp.harness import LlamaCppHarness
from tests.apps.cortex_neuron.attached import openai_server
from tests.fleet.conversations import ask, row, status, stream
from tests.fleet.processes import Daemon, Workbench, eventually, free_port

pytestmark = pytest.mark.fleet


@dataclass(slots=True)
class Server:
    """A server in a process of its own."""

    port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.process = subprocess.Popen(
            [sys.executable, openai_server.__file__, str(self.port)], stdin=subprocess.PIPE
        )
        eventually(self.answers)

    def answers(self) -> bool:
        """Tell whether it is there."""
        try:
            return httpx.get(f"{self.url}/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def change(self, **what: Any) -> None:
        """Change what it says."""
        httpx.post(f"{self.url}/control", json=what, timeout=5).raise_for_status()

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdin is not None
            self.process.stdin.close()
            self.process = None


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that runs."""
    made = Server()
    made.start()
    yield made
    made.stop()


def attach(bench: Workbench, server: Server, **more: Any) -> Daemon:
    """Start a node that is attached to the server."""
    entry = {"name": "big", "url": f"{server.url}/v1", **more}
    return bench.neuron(harness={"openai": {"look_secs": 0.1, "servers": [entry]}})


def state(neuron: Daemon) -> dict[str, Any]:
    """Return what the node says of its server."""
    (found,) = neuron.http.get(f"{neuron.url}/health").json()["attached"]
    return dict(found)


def becomes(neuron: Daemon, wanted: str, within: float = 10.0) -> None:
    """Wait for a state of the server."""
    eventually(lambda: state(neuron)["state"] == wanted, within=within, what=f"never {wanted}")


def test_its_models_are_offered_as_the_nodes_own(bench: Workbench, server: Server) -> None:
    """Loaded without a load, with their context, answered whole and streamed, never unloaded."""
    neuron = attach(bench, server)
    eventually(lambda: status(neuron, "theirs") == "loaded")
    found = row(neuron, "theirs")
    whole = ask(neuron, "theirs", text="one two three").json()
    streamed = stream(neuron, "theirs", text="one two three")
    load = neuron.http.post(f"{neuron.url}/models/load", json={"model_id": "theirs"})
    unload = neuron.http.post(f"{neuron.url}/models/unload", json={"model_id": "theirs"})

    assert found is not None
    assert (found["harness"], found["limit"]) == ("openai", {"context": 4096})
    assert "vram_used_mb" not in found
    assert whole["choices"][0]["message"]["content"] == "one two three "
    assert streamed.text() == "one two three "
    assert streamed.done
    assert load.json() == {"status": "loaded"}
    assert (unload.status_code, unload.json()["error"]["code"]) == (400, "not_ours")
    assert "openai" in neuron.http.get(f"{neuron.url}/discovery").json()["harnesses"]
    assert server.answers()


def test_a_server_that_is_gone_leaves_its_models_recovering_until_it_is_back(
    bench: Workbench, server: Server
) -> None:
    """503 and Retry-After meanwhile, in a word what is wrong, and nobody starts it but we."""
    neuron = attach(bench, server)
    eventually(lambda: status(neuron, "theirs") == "loaded")
    server.stop()
    becomes(neuron, "unreachable")
    gone, refused = row(neuron, "theirs"), ask(neuron, "theirs")
    server.start()
    becomes(neuron, "up")

    assert gone is not None
    assert gone["status"] == "recovering"
    assert gone["servable"]["ok"] is False
    assert "'big' is unreachable" in gone["servable"]["detail"]
    assert refused.status_code == 503
    assert "retry-after" in refused.headers
    assert ask(neuron, "theirs").status_code == 200
    eventually(
        lambda: (
            [one["now"] for one in neuron.events("attached.state")] == ["up", "unreachable", "up"]
        )
    )


def test_a_gateway_offers_them_without_knowing_of_the_server(
    bench: Workbench, server: Server
) -> None:
    """They are in no catalogue; the node says that it has them, and that is enough."""
    neuron = attach(bench, server)
    cortex = bench.cortex({"n1": neuron.url}, [], timeouts={"load": 1.0})
    eventually(lambda: ask(cortex, "theirs").status_code == 200)
    listed = cortex.http.get(f"{cortex.url}/v1/models").json()["data"]
    server.stop()
    becomes(neuron, "unreachable")
    gone = ask(cortex, "theirs")

    assert [(one["id"], one["loaded"]) for one in listed] == [("theirs", True)]
    assert (gone.status_code, "retry-after" in gone.headers) == (503, True)


def test_models_come_and_go_with_the_servers_list(bench: Workbench, server: Server) -> None:
    """What it no longer has is no longer offered, and told as an event."""
    neuron = attach(bench, server)
    eventually(lambda: status(neuron, "theirs") == "loaded")
    server.change(models=[{"id": "other"}])
    eventually(lambda: status(neuron, "other") == "loaded")

    assert row(neuron, "theirs") is None
    assert ask(neuron, "theirs").status_code == 404
    assert ask(neuron, "other").status_code == 200


def test_a_server_that_is_there_later_is_found_and_a_load_meanwhile_may_be_repeated(
    bench: Workbench,
) -> None:
    """Before it was seen nobody knows what it has; afterwards a model it lacks is not found."""
    server = Server()
    neuron = attach(bench, server)
    becomes(neuron, "unreachable")
    body = {"model_id": "theirs", "harness": "openai"}
    early = neuron.http.post(f"{neuron.url}/models/load", json=body)
    server.start()
    try:
        eventually(lambda: status(neuron, "theirs") == "loaded")
        missing = neuron.http.post(
            f"{neuron.url}/models/load", json={"model_id": "nobody's", "harness": "openai"}
        )
    finally:
        server.stop()

    assert (early.status_code, "retry-after" in early.headers) == (503, True)
    assert (missing.status_code, missing.json()["error"]["code"]) == (422, "not_found")


def test_its_token_comes_from_a_file_that_may_change(
    bench: Workbench, server: Server, tmp_path: Path
) -> None:
    """A wrong one is a state of its own; a new one needs no restart; it is shown to nobody."""
    server.change(token="right-token")
    token = tmp_path / "token"
    token.write_text("wrong\n")
    neuron = attach(bench, server, token_file=str(token))
    becomes(neuron, "unauthorized")
    token.write_text("right-token\n")
    becomes(neuron, "up")
    answer = ask(neuron, "theirs")
    token.unlink()
    becomes(neuron, "unauthorized")

    assert answer.status_code == 200
    assert "right-token" not in neuron.log_path.read_text()


def test_its_load_is_ours_whoever_made_it(bench: Workbench, server: Server) -> None:
    """What others have running there counts when a replica is chosen."""
    neuron = attach(bench, server)
    server.change(metrics="vllm:num_requests_running 9\nvllm:num_requests_waiting 4\n")

    def counted() -> bool:
        found = row(neuron, "theirs") or {}
        return (found.get("in_flight"), found.get("queue_depth")) == (9, 4)

    eventually(counted)
    server.change(metrics=None, health=503)
    becomes(neuron, "unwell")
    found = row(neuron, "theirs")

    assert found is not None
    assert (found["in_flight"], found["queue_depth"]) == (0, 0)
    assert ask(neuron, "theirs").status_code == 503


def test_what_it_refuses_is_told_in_our_envelope(bench: Workbench, server: Server) -> None:
    """Whole and streamed, before anything of an answer has gone out."""
    neuron = attach(bench, server)
    eventually(lambda: status(neuron, "theirs") == "loaded")
    server.change(refuse=[400, {"object": "error", "message": "bad top_p"}])
    whole, streamed = ask(neuron, "theirs"), ask(neuron, "theirs", stream=True)

    for answer in (whole, streamed):
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "bad top_p"


def test_a_frozen_server_is_given_up_after_three_looks_and_comes_back(
    bench: Workbench, server: Server
) -> None:
    """It is not ours to kill."""
    neuron = attach(bench, server)
    eventually(lambda: status(neuron, "theirs") == "loaded")
    server.signal(signal.SIGSTOP)
    try:
        becomes(neuron, "silent", within=25)
        refused = ask(neuron, "theirs")
    finally:
        server.signal(signal.SIGCONT)
    becomes(neuron, "up")

    assert refused.status_code == 503
    assert ask(neuron, "theirs").status_code == 200


def test_a_real_server_of_llama_cpp_is_one(bench: Workbench, demo_model: Path) -> None:
    """With its key, its context and its own words."""
    with llama_server(demo_model) as (url, token):
        token_file = bench.folder / "token"
        token_file.write_text(token)
        server = {"name": "llama", "url": url, "token_file": str(token_file)}
        neuron = bench.neuron(harness={"openai": {"look_secs": 0.2, "servers": [server]}})
        eventually(lambda: status(neuron, "elsewhere") == "loaded")
        answer = ask(neuron, "elsewhere")
        long = ask(neuron, "elsewhere", text="word " * 2000)

        assert answer.status_code == 200
        assert answer.json()["usage"]["completion_tokens"] > 0
        assert long.json()["error"]["code"] == "context_length_exceeded"
        assert (row(neuron, "elsewhere") or {})["limit"]["context"] == 512


@contextmanager
def llama_server(path: Path) -> Iterator[tuple[str, str]]:
    """Run the server of llama.cpp as somebody else would; give its address and its key."""
    harness = LlamaCppHarness(LlamaCppSettings(context=512, parallel=1))
    spec = harness.configure(
        harness.probe(path),
        model_id="elsewhere",
        path=path,
        devices=[Device(index=0, kind="cpu")],
    )
    with looped() as run:
        engine = run(harness.start(spec, lambda _done, _total: None))
        try:
            yield engine.url, engine.headers["authorization"].removeprefix("Bearer ")
        finally:
            run(engine.stop(5))


@contextmanager
def looped() -> Iterator[Any]:
    """A loop in a thread, and what runs a coroutine on it and waits for it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
