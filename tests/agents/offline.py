"""Where agents run: a network namespace that has its own loopback device and nothing else."""

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

INSTALL_SECS = 600
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x41


def install(packages: Path, names: Sequence[str]) -> None:
    """Install the newest version of npm packages. Raises CalledProcessError; npm says why."""
    packages.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        # Without the tag npm takes an older one where this machine's Node is not the newest.
        [
            *("npm", "install", "--no-audit", "--no-fund", "--prefix", str(packages)),
            *(f"{name}@latest" for name in names),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=INSTALL_SECS,
    )


def without_network(argv: Sequence[str]) -> list[str]:
    """Return a command that runs `argv` in a namespace of its own."""
    own = ["--net"] if os.geteuid() == 0 else ["--net", "--map-root-user"]
    return ["unshare", *own, "--", *argv]


def bring_up_loopback() -> None:
    """Make 127.0.0.1 work in a new namespace. Raises RuntimeError where a real network is left."""
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise RuntimeError("this is not a network namespace of our own")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as device:
        fcntl.ioctl(device, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))
