"""Real daemons for tests: on free loopback ports, watched through their logs, always ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

START_SECS = 30.0
END_SECS = 30.0

_Value = TypeVar("_Value")


class NeverHappened(AssertionError):
    """A condition did not come true in time."""


def eventually(
    check: Callable[[], _Value], *, within: float = 10.0, every: float = 0.01, what: str = ""
) -> _Value:
    """Return the first truthy value of `check`. Raises NeverHappened after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise NeverHappened(what or f"not within {within:g} s; last seen: {value!r}")
        time.sleep(every)  # the pause of a poll, bounded above


#: Below those that the kernel gives to connections that go out: one of them could take a port
#: before its daemon does. Each is handed out once, from a place that differs by process.
_PORTS = range(20_000, 31_000)
_candidates = islice(cycle(_PORTS), os.getpid() * 97 % len(_PORTS), None)


def free_port() -> int:
    """Return a loopback port that nobody listens on and that nobody else here was given."""
    for port in _candidates:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a cycle has no end")


@dataclass(slots=True)
class Daemon:
    """One process, its log, and where it listens."""

    name: str
    argv: Sequence[str]
    log_path: Path
    url: str
    ready_event: str
    process: subprocess.Popen[bytes] | None = None
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60, trust_env=False))

    @property
    def pid(self) -> int:
        """The process id."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start the process and wait until it says that it is ready."""
        before = len(self.events(self.ready_event))
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
            )

        def is_ready() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise NeverHappened(f"{self.name} ended at once:\n{self.log_path.read_text()}")
            return len(self.events(self.ready_event)) > before

        eventually(is_ready, within=START_SECS, what=f"{self.name}: {self.log_path.read_text()}")

    def log(self) -> list[dict[str, Any]]:
        """Return the structured lines of its log."""
        if not self.log_path.exists():
            return []
        lines = self.log_path.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return its log lines of one event."""
        return [line for line in self.log() if line.get("event") == name]

    def last_event(self, name: str) -> dict[str, Any]:
        """Return its latest log line of one event, once there is one: a line follows its answer."""
        return eventually(lambda: self.events(name), what=f"no {name} in {self.name}'s log")[-1]

    def descendants(self) -> list[psutil.Process]:
        """Return every process below it."""
        return psutil.Process(self.pid).children(recursive=True)

    def kill(self) -> None:
        """Kill it without a word."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> int:
        """Ask it to end and return its exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: int) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end."""
        assert self.process is not None
        return self.process.wait(END_SECS)

    def close(self) -> None:
        """End it whatever it does."""
        self.http.close()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(END_SECS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(END_SECS)


def environment() -> dict[str, str]:
    """Return our environment without settings of the daemons."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("CORTEX_", "NEURON_"))}


def toml(value: Any) -> str:
    """Return a value as TOML; JSON's strings, numbers, booleans and lists are TOML's."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    return json.dumps(value)


def write_toml(path: Path, values: dict[str, Any]) -> Path:
    """Write a TOML file of top-level keys."""
    path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in values.items()))
    return path


class Workbench:
    """Makes daemons in one folder and ends all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: list[Daemon] = []

    def neuron(self, name: str = "n1", **settings: Any) -> Daemon:
        """Start a neuron with these settings on top of small defaults."""
        port = free_port()
        config = write_toml(
            self.folder / f"{name}.toml", {"port": port, "model_dirs": [], **settings}
        )
        return self._start(
            name, "cortex_neuron", config, f"http://127.0.0.1:{port}", "neuron.ready"
        )

    def cortex(
        self,
        neurons: dict[str, str],
        models: list[dict[str, Any]],
        aliases: dict[str, str] | None = None,
        name: str = "cortex",
        **settings: Any,
    ) -> Daemon:
        """Start a cortex in front of these nodes."""
        port, metrics_port = free_port(), free_port()
        write_toml(self.folder / "models.toml", {"models": models, "aliases": aliases or {}})
        gateway = {
            "listen": f"127.0.0.1:{port}",
            "metrics_listen": f"127.0.0.1:{metrics_port}",
            **settings.pop("gateway", {}),
        }
        tokens = settings.pop("tokens", {})
        entries = [
            {"name": one, "endpoint": url} | ({"token_file": tokens[one]} if one in tokens else {})
            for one, url in neurons.items()
        ]
        config = write_toml(
            self.folder / f"{name}.toml", {"gateway": gateway, "neurons": entries, **settings}
        )
        daemon = self._start(
            name, "cortex_gateway", config, f"http://127.0.0.1:{port}", "cortex.ready"
        )
        healthy = len(neurons)
        eventually(
            lambda: daemon.http.get(f"{daemon.url}/health").json()["nodes"]["healthy"] == healthy,
            what="nodes never became healthy",
        )
        return daemon

    def metrics_url(self, cortex: Daemon) -> str:
        """Return where the metrics of a cortex are."""
        listen: str = cortex.events("cortex.ready")[-1]["metrics_listen"]
        return f"http://{listen}/metrics"

    def close(self) -> None:
        """End everything."""
        for daemon in reversed(self.daemons):
            daemon.close()

    def _start(self, name: str, package: str, config: Path, url: str, ready: str) -> Daemon:
        argv = [sys.executable, "-m", package, "serve", "-c", str(config)]
        daemon = Daemon(name, argv, self.folder / f"{name}.log", url, ready)
        self.daemons.append(daemon)
        daemon.start()
        return daemon


@contextmanager
def workbench(folder: Path) -> Iterator[Workbench]:
    """A workbench that leaves no process behind."""
    bench = Workbench(folder)
    try:
        yield bench
    finally:
        bench.close()
