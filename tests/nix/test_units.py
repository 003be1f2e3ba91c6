"""The units' text: systemd understands all of it, and finds little exposed."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.nix.asking import ROOT, Nix, mistake

OTHER_LINUX = ROOT / "nixos-modules" / "other-linux"
#: In tenths, as systemd-analyze takes it: 1.5 and 2.5 are allowed, and so little is needed.
EXPOSURE_MAX = {"cortex": 13, "neuron": 16}
SERVICES = sorted(EXPOSURE_MAX)


def bare(text: str) -> str:
    """Return a unit with programs that exist here: what is in the Nix store may not."""
    return re.sub(r"^(Exec\w+)=\S+", r"\1=/bin/true", text, flags=re.MULTILINE)


def complaints(text: str, folder: Path, name: str) -> str:
    """Return what systemd does not understand about a unit."""
    file = folder / f"{name}.service"
    file.write_text(bare(text), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = [line for line in done.stderr.splitlines() if file.name in line or str(file) in line]
    return "\n".join(said) or ("" if done.returncode == 0 else done.stderr)


def exposed(text: str, folder: Path, name: str) -> str:
    """Return why a unit is more exposed than it may be; empty when it is not."""
    file = folder / f"{name}.service"
    file.write_text(bare(text), encoding="utf-8")
    limit = f"--threshold={EXPOSURE_MAX[name]}"
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", limit, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def all_units(nix: Nix) -> Mapping[str, tuple[str, str]]:
    """Return every unit there is to look at: `title: (service, text)`."""
    found = {
        f"{machine} {name}": (name, text)
        for machine, about in nix.ask("fleet").items()
        for name, text in about["units"].items()
    }
    found |= {f"everything {name}": (name, text) for name, text in nix.ask("everything").items()}
    for file, text in nix.ask("otherLinux").items():
        found[f"other Linux {file}"] = (file.removesuffix(".service"), text)
    return found


def test_systemd_understands_every_unit(nix: Nix, tmp_path: Path) -> None:
    """Those of the example fleet, of the fullest configuration, and for other Linux."""
    units = all_units(nix)

    assert len(units) >= 7
    said = {title: complaints(text, tmp_path, name) for title, (name, text) in units.items()}
    assert {title: what for title, what in said.items() if what} == {}


def test_little_is_exposed(nix: Nix, tmp_path: Path) -> None:
    """Least for cortex; neuron needs devices and an engine's machine code."""
    said = {title: exposed(text, tmp_path, name) for title, (name, text) in all_units(nix).items()}

    assert {title: what for title, what in said.items() if what} == {}


@pytest.mark.parametrize("name", SERVICES)
def test_systemd_waits_for_the_drain(nix: Nix, name: str) -> None:
    """Its limit lies beyond the program's own, also where that was raised."""
    drain = {"cortex": 90.5, "neuron": 30 + 5}[name]

    limit = re.search(r"^TimeoutStopSec=(\d+)$", nix.ask("everything")[name], re.MULTILINE)
    assert limit is not None
    assert drain + 5 <= int(limit[1]) <= drain + 30


def test_secrets_are_credentials(nix: Nix) -> None:
    """The operator's files are named to systemd alone."""
    units = nix.ask("everything")

    assert "LoadCredential=neuron-hermes:/run/secrets/hermes\n" in units["cortex"]
    assert "LoadCredential=keys:/run/secrets/keys\n" in units["cortex"]
    assert "LoadCredential=hugging-face:/run/secrets/hf\n" in units["neuron"]
    assert "LoadCredential=token:/run/secrets/token\n" in units["neuron"]
    assert 'Environment="HF_TOKEN_PATH=%d/hugging-face"\n' in units["neuron"]
    for text in units.values():
        naming = [line for line in text.splitlines() if re.search("/run/secrets|/acme", line)]
        assert len(naming) >= 4
        assert all(line.startswith("LoadCredential=") for line in naming)


def test_only_the_chosen_gpus_may_be_opened(nix: Nix) -> None:
    """By number, besides what all of them share; without a GPU there is no device at all."""
    chosen = nix.ask("everything")["neuron"]
    none = nix.ask("fleet.atlas.units")["neuron"]

    allowed = re.findall(r"^DeviceAllow=(.*)$", chosen, re.MULTILINE)
    assert [one for one in allowed if one.startswith("/dev/")] == [
        "/dev/nvidia0 rw",
        "/dev/nvidia2 rw",
    ]
    assert "char-nvidia" not in allowed
    assert "char-nvidia-frontend" not in allowed
    assert "DevicePolicy=closed" in chosen
    assert "PrivateDevices=false" in chosen
    assert "PrivateDevices=true" in none
    assert "DeviceAllow" not in none


def test_the_units_for_other_linux_are_the_modules(
    nix: Nix, request: pytest.FixtureRequest
) -> None:
    """The committed files are what the modules render today."""
    rendered = nix.ask("otherLinux")

    if request.config.getoption("--write-units"):
        for name, text in rendered.items():
            (OTHER_LINUX / name).write_text(text, encoding="utf-8")
    committed = {
        file.name: file.read_text(encoding="utf-8") for file in OTHER_LINUX.glob("*.service")
    }
    assert committed == rendered, "run checks/nix-check --write-units"


def test_a_change_of_the_modules_changes_those_units(nix: Nix, source: Path) -> None:
    """They cannot drift apart unseen."""
    mistake(source, "nixos-modules/hardening.nix", "ProtectHome = true;", "ProtectHome = false;")

    changed = nix.ask("otherLinux", source)
    for name, text in changed.items():
        assert text != (OTHER_LINUX / name).read_text(encoding="utf-8")


def test_a_misspelled_directive_is_seen(nix: Nix, source: Path, tmp_path: Path) -> None:
    """What systemd would ignore with a warning fails the check."""
    mistake(source, "nixos-modules/hardening.nix", "ProtectClock =", "ProtectClocks =")

    said = complaints(nix.ask("otherLinux", source)["cortex.service"], tmp_path, "cortex")
    assert "ProtectClocks" in said


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("DynamicUser = true;", ""),
        ("RestrictNamespaces = true;", ""),
        ('CapabilityBoundingSet = "";', ""),
        ('"@system-service"', ""),
    ],
)
def test_a_weakened_unit_is_seen(
    nix: Nix, source: Path, tmp_path: Path, name: str, right: str, wrong: str
) -> None:
    """A protection taken away is more exposure than is allowed."""
    mistake(source, "nixos-modules/hardening.nix", right, wrong)

    weakened = nix.ask("otherLinux", source)[f"{name}.service"]
    assert exposed(weakened, tmp_path, name)
