"""Play the script of the VM test with daemons on this machine in the place of machines.

    unshare --net python -m tests.nix.playing FOLDER MODEL

The script and each machine's configuration are those of the VM test; only the model's file, the
names of the machines and what a machine has of memory are put in their place. Machines are
addresses of a loopback that nobody else sees.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.nix.asking import ROOT
from tests.nix.toml_text import toml_text

SCRIPT = ROOT / "checks" / "fleet_vm.py"
ADDRESSES = {"gateway": "127.0.0.1", "atlas": "127.0.0.2", "hermes": "127.0.0.3"}
#: What a machine of the VM test has, in MiB, less what its system takes.
MEMORY_MB = 1450
_MIB = 1 << 20

# What the script asks of systemd, for one unit.
SYSTEMCTL = """#!/bin/sh
case $1 in
  show) echo MainPID=$(cat "$PLAYED/pid") ;;
  reload) kill -HUP $(cat "$PLAYED/pid") ;;
esac
"""
JOURNALCTL = """#!/bin/sh
cat "$PLAYED/log"
"""


@dataclass(slots=True)
class Machine:
    """One address with one daemon, and the words of the test driver for it."""

    name: str
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """The daemon of this machine."""
        return "cortex" if self.name == "gateway" else "neuron"

    def start(self) -> None:
        """Start the daemon."""
        module = {"cortex": "cortex_gateway", "neuron": "cortex_neuron"}[self.unit]
        command = [sys.executable, "-P", "-m", module, "serve", "-c"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, str(self.folder / f"{self.unit}.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )
        (self.folder / "pid").write_text(str(self.process.pid))

    def shutdown(self) -> None:
        """Stop the daemon, as a machine does that goes down."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def succeed(self, command: str) -> str:
        """Return what a command prints that must do well."""
        done = self._run(command)
        assert done.returncode == 0, f"{self.name}: {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def fail(self, command: str) -> None:
        """Run a command that must not do well."""
        done = self._run(command)
        assert done.returncode != 0, f"{self.name}: {command}\n{done.stdout}"

    def wait_until_succeeds(self, command: str, timeout: float = 60) -> None:
        """Try a command until it does well."""
        deadline = time.monotonic() + timeout
        while (done := self._run(command)).returncode:
            assert time.monotonic() < deadline, (
                f"{command}\n{done.stdout}{done.stderr}{self._end()}"
            )
            time.sleep(0.1)

    def wait_for_unit(self, unit: str) -> None:
        """Look whether it is the daemon of this machine, and still runs."""
        assert unit == f"{self.unit}.service"
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text(encoding="utf-8")

    def wait_for_open_port(self, port: int) -> None:
        """Wait until the daemon answers."""
        self.wait_until_succeeds(
            f"curl -s -o /dev/null http://{ADDRESSES[self.name]}:{port}/health"
        )

    def _end(self) -> str:
        """Return the end of the daemon's log, for whoever reads why it did not do well."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")[-2000:]

    def _run(self, command: str) -> "subprocess.CompletedProcess[str]":
        path = f"{self.folder.parent / 'bin'}:{os.environ['PATH']}"
        here = {**os.environ, "PATH": path, "PLAYED": str(self.folder)}
        return subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=400,
            env=here,
        )


@contextmanager
def subtest(title: str) -> Iterator[None]:
    """Say which part has begun."""
    sys.stdout.write(f"{title}\n")
    yield


def prepare(folder: Path, model: str) -> Mapping[str, Machine]:
    """Return the machines whose rendered files lie in `folder`, in JSON by name."""
    (folder / "bin").mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    share = MEMORY_MB * _MIB / psutil.virtual_memory().total
    machines = {}
    for name, address in ADDRESSES.items():
        here = folder / name
        here.mkdir()
        for file, content in json.loads((folder / f"{name}.json").read_text("utf-8")).items():
            text = re.sub(r"/nix/store/[^\"]*", model, toml_text(content))
            for other, place in ADDRESSES.items():
                text = text.replace(f"http://{other}:", f"http://{place}:")
            text = text.replace('"0.0.0.0"', f'"{address}"')
            text = text.replace("/var/cache/neuron", str(here / "cache"))
            (here / file).write_text(text, encoding="utf-8")
        machines[name] = Machine(name, here)
        if name != "gateway":
            told = json.loads((folder / f"{name}.json").read_text("utf-8"))["neuron.toml"]
            part = told["devices"]["cpu_memory_share"] * share
            machines[name].environment = {"NEURON_DEVICES__CPU_MEMORY_SHARE": f"{part:.6f}"}
    return machines


def play(machines: Mapping[str, Machine]) -> None:
    """Run the script of the VM test."""

    def start_all() -> None:
        for machine in machines.values():
            machine.start()

    names = {"start_all": start_all, "subtest": subtest, **machines}
    try:
        exec(compile(SCRIPT.read_text(encoding="utf-8"), SCRIPT.name, "exec"), names)  # noqa: S102  # the driver of the VM test does the same
    finally:
        for machine in machines.values():
            machine.shutdown()


if __name__ == "__main__":
    # Nobody else is in here, so no port is taken.
    subprocess.run([shutil.which("ip") or "/sbin/ip", "link", "set", "lo", "up"], check=True)
    play(prepare(Path(sys.argv[1]), sys.argv[2]))
