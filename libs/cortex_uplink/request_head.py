"""The head of a request, as bytes that can be read in one way only.

Whatever could end a line early is refused; headers of one hop are dropped, with those that
`Connection` names; the framing headers are ours and there is exactly one of them.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from cortex_uplink.addresses import Origin, Target
from cortex_uplink.errors import RequestRefused

#: Headers that belong to one hop, never forwarded (RFC 9110, section 7.6.1).
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
#: What this side decides by itself: how long the body is, and that nobody waits for a 100.
_OURS = HOP_BY_HOP | {"content-length", "expect"}
#: No compression is asked for, so that bytes stay readable on the way.
_DEFAULTS = (("accept-encoding", "identity"), ("user-agent", "cortex"))
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REMEMBERED = 1024
#: Methods that say nothing about a body when they have none.
_BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})


class Prepared(NamedTuple):
    """A request but for its body: where it goes, and its head without the body's length."""

    origin: Origin
    method: str
    head: bytes


def prepare(
    method: str, target: Target, headers: Iterable[tuple[str, str]], *, close: bool = False
) -> Prepared:
    """Return the part of a request that may be the same for many. Raises RequestRefused."""
    if method == "CONNECT" or not _TOKEN.fullmatch(method):
        raise RequestRefused(f"not a method of ours: {method!r}")
    fields, authority = _end_to_end(headers, target.authority)
    lines = [f"{method} {target.path} HTTP/1.1\r\nhost: {authority}\r\n"]
    lines += [f"{name}: {value}\r\n" for name, value in fields]
    named = {name for name, _ in fields}
    lines += [f"{name}: {value}\r\n" for name, value in _DEFAULTS if name not in named]
    if close:
        lines.append("connection: close\r\n")
    try:
        return Prepared(target.origin, method, "".join(lines).encode("latin-1"))
    except UnicodeEncodeError:
        raise RequestRefused("a header has characters beyond Latin-1") from None


def whole_head(prepared: Prepared, length: int | None, more: tuple[str, str] | None) -> bytes:
    """Return the head of a request whose body has `length` bytes; None: it is sent in chunks.

    `more` is one more header. Raises RequestRefused.
    """
    head = prepared.head
    if more is not None:
        name, value = more
        if _CONTROL.search(value) or not value.isascii() or _name(name) in _OURS:
            raise RequestRefused(f"not a header of a request of its own: {name}")
        head += f"{name}: {value}\r\n".encode()
    if length is None:
        return head + b"transfer-encoding: chunked\r\n\r\n"
    if not length and prepared.method in _BODILESS:
        return head + b"\r\n"
    return head + b"content-length: %d\r\n\r\n" % length


def _end_to_end(
    headers: Iterable[tuple[str, str]], authority: str
) -> tuple[Sequence[tuple[str, str]], str]:
    fields: list[tuple[str, str]] = []
    nominated: set[str] = set()
    for given, value in headers:
        name = _name(given)
        if _CONTROL.search(value):
            raise RequestRefused(f"a control character in the value of {name}")
        if name == "connection":
            nominated.update(one.strip().lower() for one in value.split(","))
        elif name == "host":
            authority = value
        elif name not in _OURS:
            fields.append((name, value))
    if nominated:
        fields = [field for field in fields if field[0] not in nominated]
    return fields, authority


@lru_cache(_REMEMBERED)
def _name(given: str) -> str:
    if not _TOKEN.fullmatch(given):
        raise RequestRefused(f"not the name of a header: {given!r}")
    return given.lower()
