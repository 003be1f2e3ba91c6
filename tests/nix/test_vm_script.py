"""The script of the VM test, which needs a hypervisor and a binary cache, played with processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.nix.asking import ROOT, Nix, mistake

CHECK = "checks.x86_64-linux.fleet-vm.nodes"


def files_of(nix: Nix, source: Path, folder: Path) -> None:
    """Write down what each machine of the VM test has in its files."""
    for name in ("gateway", "atlas", "hermes"):
        unit = "cortex" if name == "gateway" else "neuron"
        files = nix.output(source, f"{CHECK}.{name}.services.{unit}.files")
        (folder / f"{name}.json").write_text(json.dumps(files), encoding="utf-8")


def played(folder: Path, model: Path) -> "subprocess.CompletedProcess[str]":
    """Return how the script ended."""
    if os.geteuid() != 0:
        pytest.fail("a network of its own needs root: run nix-check as root, or leave this out")
    command = ["unshare", "--net", sys.executable, "-m", "tests.nix.playing"]
    return subprocess.run(
        [*command, str(folder), str(model)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_script_comes_to_its_end(
    nix: Nix, source: Path, demo_model: Path, tmp_path: Path
) -> None:
    """A load where the model belongs, an eviction, a stream by an alias, a node gone and back."""
    (tmp_path / "fleet").mkdir()
    files_of(nix, source, tmp_path / "fleet")

    done = played(tmp_path / "fleet", demo_model)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 6


def test_a_fleet_that_does_not_do_so_is_seen(
    nix: Nix, source: Path, demo_model: Path, tmp_path: Path
) -> None:
    """With room for both models nothing is evicted, and the script says so."""
    (tmp_path / "fleet").mkdir()
    mistake(source, "checks/fleet-vm.nix", "cpu_memory_share = 0.2", "cpu_memory_share = 0.9")
    files_of(nix, source, tmp_path / "fleet")

    done = played(tmp_path / "fleet", demo_model)
    assert done.returncode != 0
    assert "AssertionError: {" in done.stderr
    assert "'second'" in done.stderr.splitlines()[-1]
    assert "'first'" in done.stderr.splitlines()[-1]
