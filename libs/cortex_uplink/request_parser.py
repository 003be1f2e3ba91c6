"""The asking half of HTTP/1.1 as a machine without I/O: a client's bytes in, requests out.

A head is what RFC 9112 says, to the byte: a server that reads it more kindly than the proxy in
front of it can be made to see a request that the proxy never saw. How the bytes are cut never
changes what they mean.
"""

import re
from typing import NamedTuple

from cortex_core.errors import InvalidRequest, RequestTooLarge
from cortex_uplink.head_lines import MalformedHead, is_token, split_field, split_head
from cortex_uplink.request_body import Body, ChunkedBody, LengthBody

MAX_HEAD_BYTES = 16 * 1024
MAX_HEADERS = 256
_END_OF_HEAD = b"\r\n\r\n"
_VERSIONS = {"HTTP/1.1": True, "HTTP/1.0": False}
_METHODS = frozenset({"GET", "POST", "HEAD", "DELETE", "OPTIONS", "PUT", "PATCH"})
_LENGTH = re.compile(r"[0-9]{1,18}")
#: A target that proxies are sent, and its path and query. Nobody here looks at the host.
_ADDRESS = re.compile(r"https?://[^/?]+(.*)", re.IGNORECASE)


class Head(NamedTuple):
    """What a request says before its body. Names of headers are in small letters."""

    method: str
    #: Path and query, also where the request line tells a whole address.
    target: str
    path: str
    headers: dict[str, str]
    keep_alive: bool
    #: Its client knows HTTP/1.1, so chunks.
    modern: bool


class Asked(NamedTuple):
    """A whole request."""

    head: Head
    body: bytes


class RequestParser:
    """The requests of one connection, one after the other.

    `feed` it until it returns a request. Bytes behind that one are kept in `ahead`; give them back
    by `feed(b"")` once it is answered.
    """

    __slots__ = ("_max_body_bytes", "ahead", "body", "expects_continue", "head")

    def __init__(self, max_body_bytes: int) -> None:
        #: The head of the request whose body is on its way.
        self.head: Head | None = None
        self.body: Body | None = None
        #: The client waits to be told that its body is wanted.
        self.expects_continue = False
        self.ahead = b""
        self._max_body_bytes = max_body_bytes

    @property
    def idle(self) -> bool:
        """Nothing of a request has come."""
        return self.head is None and not self.ahead

    def feed(self, data: bytes) -> Asked | None:
        """Take bytes; return the request that they complete.

        Raises InvalidRequest or RequestTooLarge: then nobody knows where the next one begins.
        """
        if self.head is None:
            data = self.ahead + data if self.ahead else data
            end = data.find(_END_OF_HEAD)
            if (len(data) if end < 0 else end + len(_END_OF_HEAD)) > MAX_HEAD_BYTES:
                raise RequestTooLarge("the request's headers are too large")
            if end < 0:
                # Lines that end in a bare LF never get to an end: say so now, do not wait for it.
                if data.count(b"\n") != data.count(b"\r\n"):
                    raise _malformed()
                self.ahead = data
                return None
            self.ahead = b""
            self._read_head(data[:end])
            data = data[end + len(_END_OF_HEAD) :]
        head, body = self.head, self.body
        assert head is not None  # noqa: S101  # it was just read
        if body is None:
            self.head, self.ahead, self.expects_continue = None, data, False
            return Asked(head, b"")
        if (rest := body.feed(data)) is None:
            return None
        self.head, self.body, self.ahead, self.expects_continue = None, None, rest, False
        return Asked(head, body.take())

    def _read_head(self, raw: bytes) -> None:
        try:
            first, *lines = split_head(raw)
            method, target, modern = _request_line(first)
            headers: dict[str, str] = {}
            for line in lines:
                name, value = split_field(line)
                if name in headers:
                    if name in _ONCE:
                        raise InvalidRequest(f"the header {name!r} came twice")
                    value = f"{headers[name]}, {value}"
                headers[name] = value
        except MalformedHead:
            raise _malformed() from None
        if len(lines) > MAX_HEADERS:
            raise RequestTooLarge("the request has too many headers")
        path = target.partition("?")[0]
        self.head = Head(method, target, path, headers, _keep_alive(headers, modern), modern)
        self.body = self._framing(headers, modern=modern)

    def _framing(self, headers: dict[str, str], *, modern: bool) -> Body | None:
        length, coding = headers.get("content-length"), headers.get("transfer-encoding")
        if modern and "host" not in headers:
            raise InvalidRequest("a request of HTTP/1.1 has a Host header")
        if (expected := headers.get("expect")) is not None:
            if expected.lower() != "100-continue":
                raise InvalidRequest("nothing but 'expect: 100-continue' is understood")
            self.expects_continue = modern
        if coding is not None:
            if coding.lower() != "chunked" or length is not None or not modern:
                raise InvalidRequest("the request's length is told in more than one way, or oddly")
            return ChunkedBody(self._max_body_bytes)
        if length is None or length == "0":
            return None
        if not _LENGTH.fullmatch(length):
            raise InvalidRequest("the header 'content-length' is not a number")
        return LengthBody(int(length), self._max_body_bytes)


def _request_line(line: str) -> tuple[str, str, bool]:
    """Return method, target, and whether it is HTTP/1.1. Raises MalformedHead."""
    parts = line.split(" ")
    if len(parts) != 3:  # noqa: PLR2004  # method, target, version
        raise MalformedHead("not a request line")
    method, target, version = parts
    modern = _VERSIONS.get(version)
    if modern is None or not target or (method not in _METHODS and not is_token(method)):
        raise MalformedHead("not a request line")
    if not target.isascii() or not target.isprintable() or "#" in target:
        raise MalformedHead("not a target")
    if not target.startswith("/") and (address := _ADDRESS.fullmatch(target)):
        target = address[1] if address[1].startswith("/") else f"/{address[1]}"
    return method, target, modern


#: Said twice, these could be understood in two ways.
_ONCE = frozenset({"content-length", "transfer-encoding", "host", "expect"})


def _keep_alive(headers: dict[str, str], modern: bool) -> bool:  # noqa: FBT001
    options = headers.get("connection")
    if options is None:
        return modern
    words = {word.strip() for word in options.lower().split(",")}
    return "close" not in words and (modern or "keep-alive" in words)


def _malformed() -> InvalidRequest:
    return InvalidRequest("the request's head is malformed")
