"""The flake: every file parses, the lock is the flake's, and every output evaluates."""

import json
from pathlib import Path

import pytest

from tests.nix.asking import ROOT, STAND_IN, Nix, Refused, check_lock, mistake, parse

FILES = sorted(
    path
    for place in ("flake.nix", "apps", "checks", "nixos-modules", "tests/nix")
    for path in ([ROOT / place] if (ROOT / place).is_file() else (ROOT / place).rglob("*.nix"))
)
#: One file each in checks/.
CHECKS = sorted(path.stem for path in (ROOT / "checks").glob("*.nix") if path.stem != "default")


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_parses(file: Path) -> None:
    """Nix can read it."""
    parse(file)


def test_a_file_that_does_not_parse_is_seen(source: Path) -> None:
    """A brace too few fails the check."""
    mistake(source, "nixos-modules/cortex.nix", "TimeoutStopSec =", "TimeoutStopSec = {")

    with pytest.raises(Refused, match="syntax error"):
        parse(source / "nixos-modules" / "cortex.nix")


def test_the_flake_only_wires() -> None:
    """What the outputs are is said elsewhere."""
    assert len((ROOT / "flake.nix").read_text(encoding="utf-8").splitlines()) < 80


def test_the_lock_is_the_flakes(source: Path) -> None:
    """Nix would change nothing in it, and it names a revision by its contents."""
    check_lock(source)

    lock = json.loads((source / "flake.lock").read_text(encoding="utf-8"))
    locked = lock["nodes"]["nixpkgs"]["locked"]
    assert len(locked["rev"]) == 40
    assert locked["narHash"].startswith("sha256-")
    assert lock["nodes"]["nixpkgs"]["original"]["ref"] == "nixos-26.05"


def test_a_lock_out_of_date_is_seen(source: Path) -> None:
    """An input that moved on without its lock fails the check. This one needs no network."""
    mistake(source, "flake.nix", "github:NixOS/nixpkgs/nixos-26.05", f"path:{STAND_IN}")

    with pytest.raises(Refused, match="requires lock file changes"):
        check_lock(source)


def test_a_new_input_without_a_lock_is_seen(source: Path) -> None:
    """A second input that nobody locked fails the check."""
    mistake(
        source,
        "flake.nix",
        "  outputs =",
        f'  inputs.more.url = "path:{STAND_IN}";\n  outputs =',
    )

    with pytest.raises(Refused, match="requires lock file changes"):
        check_lock(source)


def test_every_output_evaluates(nix: Nix, source: Path) -> None:
    """Packages, apps, checks, shell, modules and the example systems, for this machine."""
    nix.flake(source, "check", "--no-build")


def test_what_the_flake_offers(nix: Nix, source: Path) -> None:
    """Linux has all of it, a Mac the pure library, and each file of checks/ is a check."""
    shown = json.loads(nix.flake(source, "show", "--json", "--legacy"))

    for system in ("x86_64-linux", "aarch64-linux"):
        packages = {"cortex", "neuron", "cortex-up", "cortex-router", "default"}
        assert set(shown["packages"][system]) == packages
        assert set(shown["apps"][system]) == {"cortex", "default"}
        assert sorted(shown["checks"][system]) == CHECKS
        assert set(shown["devShells"][system]) == {"default"}
        assert system in shown["formatter"]
    for system in ("x86_64-darwin", "aarch64-darwin"):
        assert set(shown["packages"][system]) == {"cortex-router"}
    assert set(shown["nixosModules"]) == {"cortex", "neuron", "default"}
    assert set(shown["nixosConfigurations"]) == {"gateway", "atlas", "hermes"}
    assert set(shown["overlays"]) == {"default"}


def test_an_output_that_does_not_evaluate_is_seen(nix: Nix, source: Path) -> None:
    """A package that is not there fails the check."""
    mistake(source, "apps/packages.nix", "[ pkgs.llama-cpp ]", "[ pkgs.llama-cp ]")

    with pytest.raises(Refused, match="llama-cp"):
        nix.flake(source, "check", "--no-build")


def test_the_app_runs_everything_unless_told_otherwise(nix: Nix, source: Path) -> None:
    """`nix run .#cortex` is a program in the store, and `nix run` means the same one."""
    apps = nix.output(source, "apps.x86_64-linux")

    assert apps["cortex"]["program"].startswith("/nix/store/")
    assert apps["default"] == apps["cortex"]


def test_an_app_without_its_package_is_seen(nix: Nix, source: Path) -> None:
    """Its text is looked into, though nothing is built."""
    mistake(source, "flake.nix", "(packages pkgs).cortex-up", "(packages pkgs).cortex-upp")

    with pytest.raises(Refused, match="cortex-upp"):
        nix.output(source, "apps.x86_64-linux")


def test_an_example_system_that_fails_an_assertion_is_seen(nix: Nix, source: Path) -> None:
    """The example fleet without its keys fails the check."""
    mistake(source, "nixos-modules/fleet.nix", 'keysFile = "/run/secrets/cortex-keys";', "")

    with pytest.raises(Refused, match="is reached from other machines"):
        nix.flake(source, "check", "--no-build")
