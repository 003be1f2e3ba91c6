"""Sockets that a node and its children speak over: nobody else can reach them."""

import shutil
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class SocketFolder:
    """A folder for one socket, which only this user may enter."""

    # Short, because the path of a socket may not be long.
    path: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="cortex-")))

    @property
    def socket(self) -> Path:
        """Where the socket is, or will be."""
        return self.path / "s"

    @property
    def url(self) -> str:
        """What requests to it are sent to."""
        return f"http+unix://{quote(str(self.socket), safe='')}"

    def remove(self) -> None:
        """Take it away; once more is no matter."""
        shutil.rmtree(self.path, ignore_errors=True)


def listen(path: Path) -> socket.socket:
    """Return a socket at `path` that only this user may speak to."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(128)
    listener.setblocking(False)  # noqa: FBT003
    return listener
