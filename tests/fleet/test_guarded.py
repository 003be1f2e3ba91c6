"""Tokens between cortex and neurons, certificates of both, and starts that are refused."""

import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from cortex_core.keys import add_key, new_secret
from tests.fleet.conversations import ask, entry, stream
from tests.fleet.processes import (
    Daemon,
    Workbench,
    environment,
    eventually,
    free_port,
    write_toml,
)

pytestmark = pytest.mark.fleet

#: For `localhost`, with its key; trusted by nobody who is not told to.
CERTIFICATE = Path(__file__).parents[1] / "libs" / "cortex_uplink" / "tls" / "localhost.pem"
TOKEN, NEXT = "node-token-one", "node-token-two"
ROUTES = [
    ("GET", "/discovery"),
    ("GET", "/health"),
    ("GET", "/models"),
    ("GET", "/events"),
    ("GET", "/metrics"),
    ("POST", "/models/load"),
    ("POST", "/models/unload"),
    ("POST", "/tokenize"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
]


def sends(token: str) -> dict[str, str]:
    """Return the header that carries a token."""
    return {"authorization": f"Bearer {token}"}


def test_a_node_obeys_who_sends_its_token(bench: Workbench, demo_model: Path) -> None:
    """Nobody else, on any route; cortex has it, clients' own keys never get there."""
    (bench.folder / "node.token").write_text(f"{TOKEN}\n")
    neuron = bench.neuron("n1", token_file="node.token")

    for method, path in ROUTES:
        for headers in ({}, sends("wrong"), sends(f"{TOKEN}x"), {"x-cortex-principal": "0" * 16}):
            if method == "GET" and headers:
                continue
            answer = neuron.http.request(method, neuron.url + path, json={}, headers=headers)
            assert answer.status_code == 401, path
            assert answer.json()["error"]["code"] == "invalid_api_key"
    assert neuron.http.get(f"{neuron.url}/version").status_code == 200
    assert neuron.http.get(f"{neuron.url}/models", headers=sends(TOKEN)).status_code == 200

    cortex = bench.cortex(
        {"n1": neuron.url}, [entry("demo", demo_model)], tokens={"n1": "node.token"}
    )
    assert ask(cortex, "demo").status_code == 200
    assert stream(cortex, "demo").done
    for daemon in (neuron, cortex):
        assert TOKEN not in daemon.log_path.read_text()
    assert TOKEN not in cortex.http.get(f"{cortex.url}/fleet").text
    (line, *_) = neuron.events("token.refused")
    assert (line["level"], line["path"], line["address"]) == ("warning", "/discovery", "127.0.0.1")


def test_a_token_is_changed_without_dropping_a_request(bench: Workbench, demo_model: Path) -> None:
    """The new one beside the old, then cortex, then the old one away; a bad file does nothing."""
    of_node, of_cortex = bench.folder / "node.token", bench.folder / "cortex.token"
    of_node.write_text(TOKEN)
    of_cortex.write_text(TOKEN)
    neuron = bench.neuron("n1", token_file="node.token")
    cortex = bench.cortex(
        {"n1": neuron.url}, [entry("demo", demo_model)], tokens={"n1": "cortex.token"}
    )

    def read_again(daemon: Daemon, event: str = "config.reloaded") -> None:
        before = len(daemon.events(event))
        daemon.signal(signal.SIGHUP)
        eventually(lambda: len(daemon.events(event)) > before)

    def status(token: str) -> int:
        return neuron.http.get(f"{neuron.url}/models", headers=sends(token)).status_code

    of_node.write_text("\n")
    read_again(neuron, "config.rejected")
    assert status(TOKEN) == 200
    of_node.write_text(f"{NEXT}\n{TOKEN}\n")
    read_again(neuron)
    assert (status(TOKEN), status(NEXT)) == (200, 200)
    of_cortex.write_text(NEXT)
    read_again(cortex)
    of_node.write_text(NEXT)
    read_again(neuron)

    assert status(TOKEN) == 401
    assert ask(cortex, "demo").status_code == 200


def test_a_node_that_does_not_obey_is_told_of(bench: Workbench, demo_model: Path) -> None:
    """It is unhealthy, with the reason for the operator; clients hear 503, never 401."""
    (bench.folder / "node.token").write_text(TOKEN)
    (bench.folder / "wrong.token").write_text("wrong")
    neuron, other = bench.neuron("n1", token_file="node.token"), bench.neuron("n2")
    cortex = bench.cortex({"n2": other.url}, [entry("demo", demo_model)])
    write_toml(
        bench.folder / "cortex.toml",
        {
            "gateway": {
                "listen": cortex.url.removeprefix("http://"),
                "metrics_listen": bench.metrics_url(cortex).split("/")[2],
            },
            "neurons": [
                {"name": "n1", "endpoint": neuron.url, "token_file": "wrong.token"},
            ],
            "timeouts": {"hold": 0.5},
        },
    )
    cortex.signal(signal.SIGHUP)

    def error() -> Any:
        nodes = cortex.http.get(f"{cortex.url}/fleet").json()["nodes"]
        return next((one.get("error") for one in nodes if one["name"] == "n1"), None)

    eventually(lambda: "401" in (error() or ""))
    assert ask(cortex, "demo").status_code == 503


def secured(bench: Workbench, package: str, https_port: int, **settings: Any) -> Daemon:
    """Start a daemon that speaks HTTPS on this port."""
    name = package.removeprefix("cortex_").replace("gateway", "cortex")
    tls = {"cert_file": str(CERTIFICATE), "key_file": str(CERTIFICATE), **settings.pop("tls", {})}
    config = write_toml(bench.folder / f"{name}.toml", {**settings, "tls": tls})
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    daemon = Daemon(
        name,
        [sys.executable, "-m", package, "serve", "-c", str(config)],
        bench.folder / f"{name}.log",
        f"https://localhost:{https_port}",
        f"{name}.ready",
        http=httpx.Client(timeout=60, trust_env=False, verify=trusting),
    )
    bench.daemons.append(daemon)
    daemon.start()
    return daemon


def secured_pair(bench: Workbench, **tls: str) -> tuple[Daemon, Daemon, int]:
    """Start a cortex and its neuron, both on HTTPS, and tell the port of the metrics."""
    port, api, metrics = free_port(), free_port(), free_port()
    neuron = secured(bench, "cortex_neuron", port, port=port, model_dirs=[])
    cortex = secured(
        bench,
        "cortex_gateway",
        api,
        gateway={"listen": f"127.0.0.1:{api}", "metrics_listen": f"127.0.0.1:{metrics}"},
        neurons=[{"name": "n1", "endpoint": neuron.url}],
        tls=tls,
    )
    return cortex, neuron, metrics


def test_everything_over_tls(bench: Workbench, demo_model: Path) -> None:
    """Client to cortex to neuron: whole, streamed, watched, and measured."""
    write_toml(bench.folder / "models.toml", {"models": [entry("demo", demo_model)]})
    cortex, _, metrics = secured_pair(bench, ca_file=str(CERTIFICATE))

    eventually(lambda: cortex.http.get(f"{cortex.url}/ready").status_code == 200)
    assert ask(cortex, "demo").status_code == 200
    told = stream(cortex, "demo", max_tokens=40)
    assert told.done
    assert told.errors() == []
    assert "cortex_requests_total" in cortex.http.get(f"https://localhost:{metrics}/metrics").text
    for url in (cortex.url, cortex.url.replace("https", "http")):
        with pytest.raises(httpx.HTTPError):
            httpx.get(url, trust_env=False, timeout=5)

    before = len(cortex.events("config.reloaded"))
    cortex.signal(signal.SIGHUP)
    eventually(lambda: len(cortex.events("config.reloaded")) > before)
    assert ask(cortex, "demo").status_code == 200


def test_a_node_is_not_believed_without_its_certificate(bench: Workbench) -> None:
    """A cortex that trusts only what the system trusts never takes it for healthy."""
    cortex, _, _ = secured_pair(bench)

    def node() -> Any:
        return cortex.http.get(f"{cortex.url}/fleet").json()["nodes"][0]

    eventually(lambda: "CERTIFICATE" in (node().get("error") or "").upper())
    assert not node()["healthy"]


def run(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", package, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )


@pytest.mark.parametrize(
    ("package", "settings", "said"),
    [
        ("cortex_gateway", {"gateway": {"listen": "0.0.0.0:0"}}, "gateway.listen: 0.0.0.0:0"),
        ("cortex_neuron", {"host": "0.0.0.0", "port": 0}, "host: 0.0.0.0"),
    ],
)
def test_nobody_is_open_to_strangers_by_accident(
    tmp_path: Path, package: str, settings: dict[str, Any], said: str
) -> None:
    """They say what to do and do not start; `config check` says so beforehand."""
    config = write_toml(tmp_path / "it.toml", settings)

    for words in (("config", "check"), ("serve",)):
        told = run(package, *words, "-c", str(config))
        assert told.returncode == 2
        assert said in told.stderr
        assert "insecure = true" in told.stderr


@pytest.mark.parametrize(
    "settings",
    [
        {"access": {"keys_file": "none.toml"}},
        {"tls": {"cert_file": "some.pem", "key_file": "some.pem"}},
    ],
)
def test_files_that_cannot_be_used_stop_the_start(tmp_path: Path, settings: dict[str, Any]) -> None:
    """In a sentence; nothing is served unguarded instead."""
    (tmp_path / "some.pem").write_text("not a certificate")
    gateway = {"listen": "127.0.0.1:0", "metrics_listen": "127.0.0.1:0"}
    config = write_toml(tmp_path / "cortex.toml", {"gateway": gateway, **settings})

    told = run("cortex_gateway", "serve", "-c", str(config))

    assert told.returncode == 2
    assert str(tmp_path) in told.stderr
    assert "Traceback" not in told.stderr


def test_a_reload_does_not_open_a_public_address(bench: Workbench) -> None:
    """Keys are not taken away while others reach it, whatever the file says of addresses."""
    port, metrics = free_port(), free_port()
    path = bench.folder / "cortex.toml"
    add_key(bench.folder / "keys.toml", new_secret(), name="a")
    write_toml(bench.folder / "models.toml", {"models": []})
    gateway = {"listen": f"0.0.0.0:{port}", "metrics_listen": f"127.0.0.1:{metrics}"}
    write_toml(path, {"gateway": gateway, "access": {"keys_file": "keys.toml"}})
    argv = [sys.executable, "-m", "cortex_gateway", "serve", "-c", str(path)]
    url = f"http://127.0.0.1:{port}"
    cortex = Daemon("cortex", argv, bench.folder / "cortex.log", url, "cortex.ready")
    bench.daemons.append(cortex)
    cortex.start()

    write_toml(path, {"gateway": {**gateway, "listen": f"127.0.0.1:{port}"}})
    cortex.signal(signal.SIGHUP)

    assert "gateway.listen" in cortex.last_event("config.rejected")["error"]
    assert cortex.http.get(f"{url}/v1/models").status_code == 401


def test_commands_ask_with_the_key_of_a_file(bench: Workbench, tmp_path: Path) -> None:
    """`CORTEX_KEY_FILE` names it; without one they say what cortex says."""
    neuron, secret = bench.neuron("n1"), new_secret()
    add_key(bench.folder / "keys.toml", secret, name="me", admin=True)
    cortex = bench.cortex({"n1": neuron.url}, [], access={"keys_file": "keys.toml"})
    (tmp_path / "my.key").write_text(f"{secret}\n")
    status = [sys.executable, "-m", "cortex_gateway", "status", "--json", "-e", cortex.url]

    def told(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            status,
            capture_output=True,
            text=True,
            timeout=60,
            env={**environment(), **more},
            check=False,
        )

    without = told()
    assert without.returncode == 1
    assert "no API key" in without.stderr
    assert told(CORTEX_KEY_FILE=str(tmp_path / "my.key")).returncode == 0
    assert told(CORTEX_KEY_FILE=str(tmp_path / "none")).returncode == 2
    assert secret not in cortex.log_path.read_text()
