"""Where the contestants come from: registry packages, each in an environment of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path("build/peers")
_INSTALL_SECS = 900.0
_SBIN = "/usr/sbin"


class Missing(Exception):
    """A contestant cannot be had here; the text says why."""


def environment(name: str, requirement: str) -> Path:
    """Return the programs' folder of an environment which has `requirement`. Raises Missing."""
    folder = (CACHE / name).absolute()
    stamp = folder / ".installed"
    programs = folder / "bin"
    if stamp.exists() and stamp.read_text() == requirement:
        return programs
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--disable-pip-version-check", "--only-binary", ":all:", requirement])
    stamp.write_text(requirement)
    return programs


def program(name: str, package: str) -> str:
    """Return the path of a program, installed from Debian's `package` if need be. Raises Missing.

    Only root on a machine with apt-get installs anything.
    """
    if found := _which(name):
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"{name} is not installed, and only root can: apt-get install {package}")
    quiet = ["apt-get", "--quiet", "--yes"]
    _run([*quiet, "update"])
    _run([*quiet, "install", "--no-install-recommends", package])
    if found := _which(name):
        return found
    raise Missing(f"{package} brought no {name}")


def _which(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_SBIN)


def _run(argv: list[str]) -> None:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(argv, check=True, capture_output=True, timeout=_INSTALL_SECS, env=environ)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).decode(errors="replace").strip()
        raise Missing(f"{' '.join(argv[:3])} …: {said[-300:]}") from error
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{' '.join(argv[:3])} …: not within {_INSTALL_SECS:g} s") from error
