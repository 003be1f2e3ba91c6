"""A machine of its own for the units: a real systemd in a container, on loopback alone.

Its system is the /usr of this one, read-only, with an empty /etc and /var; it ends with the probe.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
PROBE = Path(__file__).with_name("probe.py")
BOOT_AND_PROBE_SECS = 240

#: The interpreter, the installed commands and what they import, as the container sees them. Not
#: where they lie here: that may be a home, which is hidden from the services.
PYTHON, INSTALLED, PACKAGES = Path("/opt/python"), Path("/opt/cortex"), Path("/opt/packages")

TOKEN, NODE_TOKEN = "a-token-of-the-witness", "a-token-of-the-node"
CORTEX_TOML = """
[[neurons]]
name = "here"
endpoint = "http://127.0.0.1:13131"
token_file = "/run/credentials/cortex.service/neuron-here"

[[neurons]]
name = "witness"
endpoint = "http://127.0.0.1:19999"
token_file = "/run/credentials/cortex.service/neuron-witness"
"""
MODELS_TOML = """
[[models]]
id = "small"
"""
NEURON_TOML = """
cache_dir = "/var/cache/neuron"
token_file = "/run/credentials/neuron.service/token"

[[default_models]]
model_id = "small"
source = "/srv/models/small.gguf"
options = { context = 1024, parallel = 1 }
"""
CREDENTIALS = {
    "cortex": """
[Service]
LoadCredential=neuron-here:/etc/cortex/node.token
LoadCredential=neuron-witness:/etc/cortex/witness.token
""",
    "neuron": """
[Service]
LoadCredential=token:/etc/cortex/node.token
""",
}
# An interpreter may look for its own library where it was built.
MANAGER = f"""
[Manager]
DefaultEnvironment=LD_LIBRARY_PATH={PYTHON}/lib
"""
PROBE_UNIT = """
[Unit]
Description=What becomes of the units

[Service]
Type=oneshot
ExecStart={python} /probe/probe.py {only}
ExecStopPost=/usr/bin/systemctl --force poweroff
TimeoutStartSec=220
"""


def install(folder: Path) -> Path:
    """Install the distribution into an environment that belongs in /opt/cortex; return it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder)]
    subprocess.run([*wheel, str(ROOT)], check=True)
    (built,) = folder.glob("*.whl")
    made = folder / "cortex"
    venv.create(made, with_pip=False, symlinks=True)
    python = made / "bin" / "python"
    into = ["--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, *into, str(built)], check=True)

    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (made / "lib" / version / "site-packages" / "packages.pth").write_text(f"{PACKAGES}\n")
    for script in (made / "bin").iterdir():
        if script.is_symlink():
            script.unlink()
        elif script.name in ("cortex", "neuron"):
            text = script.read_text(encoding="utf-8")
            script.write_text(text.replace(str(made), str(INSTALLED)), encoding="utf-8")
    python.symlink_to(PYTHON / "bin" / version)
    (made / "pyvenv.cfg").write_text(f"home = {PYTHON / 'bin'}\n")
    return made


def boot(
    folder: Path,
    *,
    installed: Path,
    units: Mapping[str, str],
    model: Path,
    only: str = "everything",
) -> dict[str, Any]:
    """Boot the container, let the probe look, and return what it found. Blocks until it is off."""
    shared, etc, systemd = folder / "probe", folder / "etc", folder / "systemd"
    for place in (shared, etc, systemd):
        place.mkdir(parents=True)
    shutil.copy(PROBE, shared / PROBE.name)
    for name, text in (
        ("cortex.toml", CORTEX_TOML),
        ("models.toml", MODELS_TOML),
        ("neuron.toml", NEURON_TOML),
        ("witness.token", TOKEN),
        ("node.token", NODE_TOKEN),
    ):
        (etc / name).write_text(text, encoding="utf-8")
        # Nobody but root reads the secrets; the rest is as anyone would write it.
        (etc / name).chmod(0o600 if name.endswith(".token") else 0o644)
    for name, text in units.items():
        (systemd / name).write_text(text, encoding="utf-8")
    for name, text in CREDENTIALS.items():
        (systemd / f"{name}.service.d").mkdir()
        (systemd / f"{name}.service.d" / "token.conf").write_text(text, encoding="utf-8")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    python = PYTHON / "bin" / version
    (systemd / "probe.service").write_text(PROBE_UNIT.format(python=python, only=only), "utf-8")

    manager = folder / "python.conf"
    manager.write_text(MANAGER, encoding="utf-8")

    binds = {shared: Path("/probe"), etc: Path("/etc/cortex")}
    readable = {
        Path(sys.base_prefix): PYTHON,
        installed: INSTALLED,
        Path(sysconfig.get_path("platlib")): PACKAGES,
        manager: Path("/etc/systemd/system.conf.d/python.conf"),
        model: Path("/srv/models/small.gguf"),
        **{one: Path("/etc/systemd/system") / one.name for one in systemd.iterdir()},
    }
    done = _nspawn(
        [f"--bind={here}:{there}" for here, there in binds.items()]
        + [f"--bind-ro={here}:{there}" for here, there in readable.items()]
    )
    findings = shared / "findings.json"
    if not findings.exists():
        raise AssertionError(f"the container did not run:\n{done}")
    found: dict[str, Any] = json.loads(findings.read_text(encoding="utf-8"))
    found["journal"] = (shared / "journal.txt").read_text(encoding="utf-8")
    return found


def _nspawn(binds: Sequence[str]) -> str:
    """Run the container to its end and return what its console said."""
    kernel_line = [
        "systemd.firstboot=off",
        "systemd.mask=systemd-firstboot.service",
        "systemd.mask=systemd-networkd-wait-online.service",
        "systemd.mask=systemd-networkd.service",
        "systemd.unit=probe.service",
    ]
    done = subprocess.run(
        [
            "systemd-nspawn",
            "--register=no",
            "--keep-unit",
            "--private-network",
            "--directory=/",
            "--volatile=yes",
            f"--machine=cortex-units-{os.getpid()}",
            *binds,
            "--boot",
            "--",
            *kernel_line,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=BOOT_AND_PROBE_SECS,
        check=False,
    )
    return done.stdout
