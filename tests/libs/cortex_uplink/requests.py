"""Requests as clients send them, right and wrong, and what has to become of them."""

from dataclasses import dataclass
from typing import NamedTuple

from cortex_core.errors import InvalidRequest, RequestTooLarge
from cortex_uplink.request_parser import Head, RequestParser

MAX_BODY_BYTES = 4096
POST = b"POST /v1 HTTP/1.1\r\nhost: a\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


class Seen(NamedTuple):
    """One request, as far as two readers have to agree on it."""

    method: str
    target: str
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a parser made of all that a client sent."""

    requests: tuple[Seen, ...] = ()
    #: It was refused after these, else more is waited for.
    refused: bool = False
    #: The last of them, or the refusal, ends the connection.
    over: bool = False


def hear(pieces: list[bytes], max_body_bytes: int = MAX_BODY_BYTES) -> Heard:
    """Return what comes of bytes that arrive in `pieces`, each request answered at once."""
    parser = RequestParser(max_body_bytes)
    seen: list[Seen] = []
    for piece in pieces:
        data = piece
        try:
            while (asked := parser.feed(data)) is not None:
                seen.append(Seen(asked.head.method, asked.head.target, asked.body))
                if not asked.head.keep_alive:
                    return Heard(requests=tuple(seen), over=True)
                data = b""
        except (InvalidRequest, RequestTooLarge):
            return Heard(requests=tuple(seen), refused=True, over=True)
    return Heard(requests=tuple(seen))


def head_of(raw: bytes) -> Head:
    """Return the head of the request that `raw` is."""
    asked = RequestParser(MAX_BODY_BYTES).feed(raw)
    assert asked is not None
    return asked.head


def one(
    body: bytes = b"", *, method: str = "POST", target: str = "/v1", over: bool = False
) -> Heard:
    """Return what is heard of one request and nothing else."""
    return Heard(requests=(Seen(method, target, body),), over=over)


#: Name, bytes, what they are.
GOOD: list[tuple[str, bytes, Heard]] = [
    ("no body", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", one(method="GET", target="/")),
    ("HEAD", b"HEAD /v1 HTTP/1.1\r\nhost: a\r\n\r\n", one(method="HEAD")),
    ("no length", POST + b"\r\n", one()),
    ("a length", POST + b"content-length: 2\r\n\r\nab", one(b"ab")),
    ("a length of nothing", POST + b"Content-Length: 0\r\n\r\n", one()),
    ("a length with zeros before it", POST + b"content-length: 002\r\n\r\nab", one(b"ab")),
    ("a length of many zeros", POST + b"content-length: 00\r\n\r\n", one()),
    ("blanks around a length", POST + b"content-length:\t 2 \t\r\n\r\nab", one(b"ab")),
    ("chunks", CHUNKED + b"2\r\nab\r\n01\r\nc\r\n000\r\n\r\n", one(b"abc")),
    ("no chunk", CHUNKED + b"0\r\n\r\n", one()),
    ("big digits", CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", one(b"0123456789")),
    ("an extension", CHUNKED + b'1;a;b=c;d="e"\r\na\r\n0;f\r\n\r\n', one(b"a")),
    ("trailers", CHUNKED + b"1\r\na\r\n0\r\nx-one: 1\r\nX-Two: 2 \r\n\r\n", one(b"a")),
    ("a trailer that says a length", CHUNKED + b"0\r\ncontent-length: 9\r\n\r\n", one()),
    ("a chunk that looks like an end", CHUNKED + b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", one(b"0\r\n\r\n")),
    (
        "chunked in capitals",
        POST + b"Transfer-Encoding: Chunked \r\n\r\n1\r\na\r\n0\r\n\r\n",
        one(b"a"),
    ),
    ("closing", POST + b"connection: x, Close\r\n\r\n", one(over=True)),
    (
        "closing, said a second time",
        POST + b"connection: x\r\nconnection: close\r\n\r\n",
        one(over=True),
    ),
    ("1.0", b"POST /v1 HTTP/1.0\r\ncontent-length: 1\r\n\r\na", one(b"a", over=True)),
    ("1.0 kept alive", b"POST /v1 HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", one()),
    (
        "1.0 kept alive and closing",
        b"POST /v1 HTTP/1.0\r\nconnection: keep-alive, close\r\n\r\n",
        one(over=True),
    ),
    (
        "1.0 that expects",
        b"POST /v1 HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\na",
        one(b"a", over=True),
    ),
    ("an expectation", POST + b"expect: 100-Continue\r\ncontent-length: 1\r\n\r\na", one(b"a")),
    ("a whole address", b"POST http://b:8/v1?x HTTP/1.1\r\nhost: a\r\n\r\n", one(target="/v1?x")),
    ("an address alone", b"POST HTTP://b HTTP/1.1\r\nhost: a\r\n\r\n", one(target="/")),
    ("an address and a query", b"POST https://b?x HTTP/1.1\r\nhost: a\r\n\r\n", one(target="/?x")),
    ("an asterisk", b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", one(method="OPTIONS", target="*")),
    ("a method of one's own", b"M-S / HTTP/1.1\r\nhost: a\r\n\r\n", one(method="M-S", target="/")),
    ("letters beyond ASCII in a value", POST + b"x: g\xfct\x85\xa0\r\n\r\n", one()),
    ("a tab in a value", POST + b"x: a\tb\r\n\r\n", one()),
    ("a header of nothing", POST + b"x:\r\n\r\n", one()),
    ("a header twice", POST + b"x: y\r\nX: z\r\n\r\n", one()),
    (
        "two, the second in the body of nobody",
        POST + b"content-length: 1\r\n\r\na" + CHUNKED + b"1\r\nb\r\n0\r\n\r\n",
        Heard(requests=(Seen("POST", "/v1", b"a"), Seen("POST", "/v1", b"b"))),
    ),
    (
        "two, where the first closes",
        POST + b"connection: close\r\n\r\n" + POST + b"\r\n",
        one(over=True),
    ),
    ("one and a half", POST + b"\r\n" + POST, one()),
    ("half a head", POST, Heard()),
    ("nothing", b"", Heard()),
    ("half a body", POST + b"content-length: 3\r\n\r\nab", Heard()),
    ("half a chunk", CHUNKED + b"5\r\nab", Heard()),
    ("no last line", CHUNKED + b"1\r\na\r\n0\r\n", Heard()),
    ("half a trailer", CHUNKED + b"0\r\nx: y\r\n", Heard()),
]

#: Name, bytes: none of them may be taken for a request, nor be waited on.
REFUSED: list[tuple[str, bytes]] = [
    # Lengths that could be understood in two ways: one hop sees one request, the next sees two.
    ("two lengths", POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\na"),
    ("one length twice", POST + b"content-length: 1\r\nContent-Length: 1\r\n\r\na"),
    ("a list of lengths", POST + b"content-length: 1, 1\r\n\r\na"),
    ("a signed length", POST + b"content-length: +1\r\n\r\na"),
    ("a negative length", POST + b"content-length: -1\r\n\r\na"),
    ("a hexadecimal length", POST + b"content-length: 0x1\r\n\r\na"),
    ("a length with an underscore", POST + b"content-length: 1_0\r\n\r\na"),
    ("a length in two parts", POST + b"content-length: 1 0\r\n\r\na"),
    ("a length in other digits", POST + b"content-length: \xb2\r\n\r\nab"),
    ("a length beyond all measure", POST + b"content-length: 99999999999999999999\r\n\r\n"),
    ("an empty length", POST + b"content-length:\r\n\r\na"),
    ("a length, then chunks", POST + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
    ("chunks, then a length", POST + b"transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n"),
    ("chunks twice", POST + b"transfer-encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("chunks in chunks", POST + b"transfer-encoding: chunked, chunked\r\n\r\n"),
    ("compressed chunks", POST + b"transfer-encoding: gzip, chunked\r\n\r\n"),
    ("chunks, then compressed", POST + b"transfer-encoding: chunked, gzip\r\n\r\n"),
    ("identity", POST + b"transfer-encoding: identity\r\n\r\n"),
    ("nearly chunked", POST + b"transfer-encoding: xchunked\r\n\r\n"),
    ("chunked in quotes", POST + b'transfer-encoding: "chunked"\r\n\r\n'),
    ("chunked after a tab of its own", POST + b"transfer-encoding: \x0bchunked\r\n\r\n"),
    ("chunked after a blank of its own", POST + b"transfer-encoding: \xa0chunked\r\n\r\n"),
    ("chunked with a parameter", POST + b"transfer-encoding: chunked;a=b\r\n\r\n"),
    ("no encoding", POST + b"transfer-encoding:\r\n\r\n"),
    ("chunked on a folded line", POST + b"transfer-encoding:\r\n chunked\r\n\r\n"),
    ("chunks of 1.0", b"POST /v1 HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("another expectation", POST + b"expect: 200-ok\r\n\r\n"),
    ("an expectation twice", POST + b"expect: 100-continue\r\nexpect: 100-continue\r\n\r\n"),
    ("no host", b"GET / HTTP/1.1\r\n\r\n"),
    ("two hosts", POST + b"host: b\r\n\r\n"),
    ("one host twice", POST + b"Host: a\r\n\r\n"),
    # Bodies.
    ("a body that is too long", POST + b"content-length: 4097\r\n\r\n"),
    ("chunks that are too long", CHUNKED + b"1001\r\n" + b"x" * 4097),
    ("a blank after a size", CHUNKED + b"1 \r\na\r\n0\r\n\r\n"),
    ("a blank before a size", CHUNKED + b" 1\r\na\r\n0\r\n\r\n"),
    ("no size", CHUNKED + b"\r\na\r\n0\r\n\r\n"),
    ("an extension of no size", CHUNKED + b";a\r\n0\r\n\r\n"),
    ("a size with a prefix", CHUNKED + b"0x1\r\na\r\n0\r\n\r\n"),
    ("a size with an underscore", CHUNKED + b"1_0\r\na\r\n0\r\n\r\n"),
    ("a signed size", CHUNKED + b"+1\r\na\r\n0\r\n\r\n"),
    ("a negative size", CHUNKED + b"-1\r\na\r\n0\r\n\r\n"),
    ("a size that is no number", CHUNKED + b"g\r\na\r\n0\r\n\r\n"),
    ("a size beyond all measure", CHUNKED + b"fffffffffffffffff\r\na"),
    ("a chunk that is longer than it said", CHUNKED + b"1\r\nab\r\n0\r\n\r\n"),
    ("chunks with lines of LF only", CHUNKED + b"1\na\n0\n\n"),
    ("LF after a size", CHUNKED + b"1\na\r\n0\r\n\r\n"),
    ("CR after a size", CHUNKED + b"1\ra\r\n0\r\n\r\n"),
    ("LF after a chunk", CHUNKED + b"1\r\na\n0\r\n\r\n"),
    ("CR in an extension", CHUNKED + b"1;a\rb\r\na\r\n0\r\n\r\n"),
    ("LF in a quoted extension", CHUNKED + b'1;a="\n"\r\na\r\n0\r\n\r\n'),
    ("LF after the last size", CHUNKED + b"0\n\r\n"),
    ("LF after the last chunk", CHUNKED + b"0\r\n\n"),
    ("a trailer without a name", CHUNKED + b"0\r\n: x\r\n\r\n"),
    ("a trailer without a colon", CHUNKED + b"0\r\nx\r\n\r\n"),
    ("a folded trailer", CHUNKED + b"0\r\nx: y\r\n z\r\n\r\n"),
    ("a blank before a trailer's colon", CHUNKED + b"0\r\nx : y\r\n\r\n"),
    # Heads.
    ("not HTTP", b"SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("HTTP/0.9", b"GET /\r\n\r\n"),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nhost: a\r\n\r\n"),
    ("HTTP/1.10", b"GET / HTTP/1.10\r\nhost: a\r\n\r\n"),
    ("http in small letters", b"GET / http/1.1\r\nhost: a\r\n\r\n"),
    ("a line before it", b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("an empty head", b"\r\n\r\n"),
    ("a blank before it", b" GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("two blanks", b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a tab for a blank", b"GET\t/ HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a blank at the end", b"GET / HTTP/1.1 \r\nhost: a\r\n\r\n"),
    ("a blank in the target", b"GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("no target", b"GET HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("an empty target", b"GET  HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a fragment", b"GET /#a HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a control character in the target", b"GET /\x01 HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a letter beyond ASCII in the target", b"GET /\xe4 HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a method that is no token", b"G(T / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("no method", b" / HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a head of LF only", b"GET / HTTP/1.1\nhost: a\n\n"),
    ("LF after the first line", b"GET / HTTP/1.1\nhost: a\r\n\r\n"),
    ("CR after the first line", b"GET / HTTP/1.1\rhost: a\r\n\r\n"),
    ("LF in a header", POST + b"x: y\nz: a\r\n\r\n"),
    ("CR in a header", POST + b"x: y\rz: a\r\n\r\n"),
    ("two CR", POST + b"x: y\r\r\nz: a\r\n\r\n"),
    ("a folded header", POST + b"x: y\r\n z\r\n\r\n"),
    ("a folded header with a colon", POST + b"x: y\r\n z: a\r\n\r\n"),
    ("a folded first header", b"GET / HTTP/1.1\r\n host: a\r\n\r\n"),
    ("a blank before a colon", POST + b"content-length : 1\r\n\r\na"),
    ("a tab before a colon", POST + b"transfer-encoding\t: chunked\r\n\r\n"),
    ("a header without a name", POST + b": y\r\n\r\n"),
    ("a header without a colon", POST + b"x\r\n\r\n"),
    ("a foreign letter in a name", POST + b"x\xe4: y\r\n\r\n"),
    ("a letter that is small for another", POST + b"content-length\xaa: y\r\n\r\n"),
    ("a NUL in a name", POST + b"x\0: y\r\n\r\n"),
    ("a NUL in a value", POST + b"x: y\0z\r\n\r\n"),
    ("a control character in a value", POST + b"x: y\x01z\r\n\r\n"),
    ("DEL in a value", POST + b"x: y\x7fz\r\n\r\n"),
]
