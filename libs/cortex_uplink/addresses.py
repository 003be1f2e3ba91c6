"""URLs as this library takes them: where to connect, and what to ask for there.

`http://` and `https://` as everywhere; `http+unix://%2Frun%2Fengine.sock/path` names a Unix socket
by its percent-encoded path.
"""

import re
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from cortex_uplink.errors import RequestRefused

#: Splitting silently drops line breaks, so they are refused before it.
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_HOST = re.compile(r"[A-Za-z0-9._-]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_UNIX = "http+unix"
_REMEMBERED = 1024


class Origin(NamedTuple):
    """Where a connection leads: requests of the same origin may share one."""

    host: str
    port: int
    tls: bool = False
    #: Not empty: the path of a Unix socket, and the rest says nothing.
    socket_path: str = ""

    def __str__(self) -> str:
        return self.socket_path or f"{self.host}:{self.port}"


class Target(NamedTuple):
    """What a URL asks for."""

    origin: Origin
    #: Path and query, as the request line has them.
    path: str
    #: The value of the `Host` header.
    authority: str


@lru_cache(_REMEMBERED)
def target_of(url: str) -> Target:
    """Return what `url` asks for. Raises RequestRefused."""
    if not _VISIBLE.fullmatch(url):
        raise RequestRefused(f"not a URL: {url!r}")
    try:
        parts = urlsplit(url)
        path = parts.path or "/"
        if not path.startswith("/"):
            raise RequestRefused(f"not an absolute path: {url!r}")
        if parts.query:
            path = f"{path}?{parts.query}"
        if parts.scheme == _UNIX:
            return Target(_unix_origin(parts), path, "localhost")
        return _over_ip(parts, path)
    except ValueError as error:
        raise RequestRefused(f"{error}: {url!r}") from None


def _over_ip(parts: SplitResult, path: str) -> Target:
    default = _DEFAULT_PORTS.get(parts.scheme)
    if default is None:
        raise RequestRefused(f"not a scheme of ours: {parts.scheme!r}")
    if "@" in parts.netloc:
        raise RequestRefused("credentials do not belong in a URL")
    host = parts.hostname or ""
    if "[" in parts.netloc:
        IPv6Address(host)
        authority = f"[{host}]"
    elif _HOST.fullmatch(host):
        authority = host
    else:
        raise RequestRefused(f"not a host: {host!r}")
    port = default if parts.port is None else parts.port
    if port != default:
        authority = f"{authority}:{port}"
    return Target(Origin(host, port, parts.scheme == "https"), path, authority)


def _unix_origin(parts: SplitResult) -> Origin:
    socket_path = unquote(parts.netloc)
    if not socket_path.startswith("/") or "\0" in socket_path:
        raise RequestRefused(f"not the absolute path of a socket: {socket_path!r}")
    return Origin("", 0, socket_path=socket_path)
