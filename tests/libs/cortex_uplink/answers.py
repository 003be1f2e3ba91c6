"""Answers as servers send them, right and wrong, and what has to become of them."""

from dataclasses import dataclass

from cortex_uplink.answer_parser import AnswerParser
from cortex_uplink.errors import MalformedAnswer

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a parser made of an answer and the end of the connection."""

    status: int = 200
    body: bytes = b""
    #: Nothing was missing at the end.
    complete: bool = True
    #: The connection may carry another request.
    reusable: bool = True
    trailers: tuple[tuple[str, str], ...] = ()


def parse(pieces: list[bytes], *, to_head: bool = False) -> Read | None:
    """Return what comes of an answer that arrives in `pieces`; None: it is refused."""
    parser = AnswerParser(to_head=to_head)
    body = b""
    try:
        for piece in pieces:
            body += parser.feed(piece)
    except MalformedAnswer:
        return None
    before_the_end = parser.complete
    missing = parser.finish()
    assert bool(missing) is not parser.complete
    return Read(
        status=parser.status,
        body=body,
        complete=parser.complete,
        reusable=before_the_end and parser.keep_alive and not parser.excess,
        trailers=tuple(parser.trailers),
    )


#: Name, bytes, what they are.
GOOD: list[tuple[str, bytes, Read]] = [
    ("a length", OK + b"content-length: 2\r\n\r\nab", Read(body=b"ab")),
    ("no body", OK + b"Content-Length: 0\r\n\r\n", Read()),
    ("blanks around a length", OK + b"content-length:\t 2 \t\r\n\r\nab", Read(body=b"ab")),
    ("no reason", b"HTTP/1.1 200\r\ncontent-length: 1\r\n\r\na", Read(body=b"a")),
    ("an empty reason", b"HTTP/1.1 200 \r\ncontent-length: 1\r\n\r\na", Read(body=b"a")),
    ("a foreign reason", b"HTTP/1.1 200 g\xfct\r\ncontent-length: 0\r\n\r\n", Read()),
    ("a status of one's own", b"HTTP/1.1 799 x\r\ncontent-length: 0\r\n\r\n", Read(status=799)),
    ("until the end", OK + b"\r\nab\r\n\r\ncd", Read(body=b"ab\r\n\r\ncd", reusable=False)),
    ("nothing until the end", OK + b"x: y\r\n\r\n", Read(reusable=False)),
    ("one chunk", CHUNKED + b"2\r\nab\r\n0\r\n\r\n", Read(body=b"ab")),
    ("no chunk", CHUNKED + b"0\r\n\r\n", Read()),
    ("chunks", CHUNKED + b"2\r\nab\r\n01\r\nc\r\n000\r\n\r\n", Read(body=b"abc")),
    ("big digits", CHUNKED + b"A\r\n0123456789\r\n0\r\n\r\n", Read(body=b"0123456789")),
    (
        "a chunk that looks like an end",
        CHUNKED + b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        Read(body=b"0\r\n\r\n"),
    ),
    ("an extension", CHUNKED + b'1;a;b=c;d="e"\r\na\r\n0;f\r\n\r\n', Read(body=b"a")),
    (
        "trailers",
        CHUNKED + b"1\r\na\r\n0\r\nx-one: 1\r\nX-Two: 2 \r\n\r\n",
        Read(body=b"a", trailers=(("x-one", "1"), ("x-two", "2"))),
    ),
    (
        "chunked in capitals",
        OK + b"Transfer-Encoding: Chunked \r\n\r\n1\r\na\r\n0\r\n\r\n",
        Read(body=b"a"),
    ),
    (
        "closing",
        OK + b"connection: close\r\ncontent-length: 1\r\n\r\na",
        Read(body=b"a", reusable=False),
    ),
    (
        "closing, among others",
        OK + b"Connection: x, Close\r\ncontent-length: 1\r\n\r\na",
        Read(body=b"a", reusable=False),
    ),
    (
        "closing, said a second time",
        OK + b"connection: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        Read(reusable=False),
    ),
    ("1.0", b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na", Read(body=b"a", reusable=False)),
    (
        "1.0 kept alive",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 1\r\n\r\na",
        Read(body=b"a"),
    ),
    (
        "1.0 kept alive without a length",
        b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n\r\na",
        Read(body=b"a", reusable=False),
    ),
    ("204", b"HTTP/1.1 204 No Content\r\n\r\n", Read(status=204)),
    (
        "204 with a length",
        b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n",
        Read(status=204, reusable=False),
    ),
    (
        "204 with chunks",
        b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
        Read(status=204, reusable=False),
    ),
    ("304", b"HTTP/1.1 304 x\r\ncontent-length: 9\r\n\r\n", Read(status=304)),
    (
        "100 before it",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 1\r\n\r\na",
        Read(body=b"a"),
    ),
    (
        "many before it, with headers that mean nothing",
        b"HTTP/1.1 103 x\r\nlink: a\r\ncontent-length: 9\r\nconnection: close\r\n\r\n"
        b"HTTP/1.1 102 x\r\ntransfer-encoding: chunked\r\n\r\n"
        + OK
        + b"content-length: 1\r\n\r\na",
        Read(body=b"a"),
    ),
    (
        "an upgrade that was not made",
        OK + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 1\r\n\r\na",
        Read(body=b"a"),
    ),
    (
        "bytes after a length",
        OK + b"content-length: 2\r\n\r\nabc",
        Read(body=b"ab", reusable=False),
    ),
    (
        "a line after a length",
        OK + b"content-length: 1\r\n\r\na\r\n",
        Read(body=b"a", reusable=False),
    ),
    ("bytes after no body", OK + b"content-length: 0\r\n\r\nx", Read(reusable=False)),
    ("bytes after a 204", b"HTTP/1.1 204 x\r\n\r\nx", Read(status=204, reusable=False)),
    (
        "a second answer",
        OK + b"content-length: 1\r\n\r\na" + OK + b"content-length: 1\r\n\r\nb",
        Read(body=b"a", reusable=False),
    ),
    ("a line after chunks", CHUNKED + b"0\r\n\r\n\r\n", Read(reusable=False)),
    ("half a line after chunks", CHUNKED + b"0\r\n\r\n\r", Read(reusable=False)),
    ("a byte after chunks", CHUNKED + b"1\r\na\r\n0\r\n\r\nx", Read(body=b"a", reusable=False)),
    (
        "a line after trailers",
        CHUNKED + b"0\r\nx: y\r\n\r\n\r\n",
        Read(trailers=(("x", "y"),), reusable=False),
    ),
    (
        "a second answer after chunks",
        CHUNKED + b"0\r\n\r\n" + CHUNKED + b"1\r\nb\r\n0\r\n\r\n",
        Read(reusable=False),
    ),
    ("no end of a head", OK + b"x: y\r\n", Read(status=0, complete=False, reusable=False)),
    ("nothing", b"", Read(status=0, complete=False, reusable=False)),
    ("only a 100", b"HTTP/1.1 100 x\r\n\r\n", Read(status=0, complete=False, reusable=False)),
    (
        "less than a length",
        OK + b"content-length: 3\r\n\r\nab",
        Read(body=b"ab", complete=False, reusable=False),
    ),
    ("no last chunk", CHUNKED + b"1\r\na\r\n", Read(body=b"a", complete=False, reusable=False)),
    ("half a chunk", CHUNKED + b"5\r\nab", Read(body=b"ab", complete=False, reusable=False)),
    (
        "half a last chunk",
        CHUNKED + b"1\r\na\r\n0\r\n",
        Read(body=b"a", complete=False, reusable=False),
    ),
]

#: Answers to HEAD.
WITHOUT_BODY: list[tuple[str, bytes, Read]] = [
    ("a length", OK + b"content-length: 5\r\n\r\n", Read()),
    ("chunks", CHUNKED, Read()),
    ("neither", OK + b"\r\n", Read()),
    ("a body all the same", OK + b"content-length: 1\r\n\r\na", Read(reusable=False)),
]

#: Name, bytes: none of them may be taken for an answer, nor be waited on.
REFUSED: list[tuple[str, bytes]] = [
    # Lengths that could be understood in two ways: one hop sees one answer, the next sees two.
    ("two lengths", OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\na"),
    ("one length twice", OK + b"content-length: 1\r\nContent-Length: 1\r\n\r\na"),
    ("a list of lengths", OK + b"content-length: 1, 1\r\n\r\na"),
    ("a signed length", OK + b"content-length: +1\r\n\r\na"),
    ("a negative length", OK + b"content-length: -1\r\n\r\na"),
    ("a hexadecimal length", OK + b"content-length: 0x1\r\n\r\na"),
    ("a length with an underscore", OK + b"content-length: 1_0\r\n\r\na"),
    ("a length in two parts", OK + b"content-length: 1 0\r\n\r\na"),
    ("a length beyond all measure", OK + b"content-length: 99999999999999999999\r\n\r\n"),
    ("an empty length", OK + b"content-length:\r\n\r\na"),
    ("a length, then chunks", OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n"),
    ("chunks, then a length", OK + b"transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n"),
    ("chunks twice", OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n"),
    ("chunks in chunks", OK + b"transfer-encoding: chunked, chunked\r\n\r\n"),
    ("compressed chunks", OK + b"transfer-encoding: gzip, chunked\r\n\r\n"),
    ("chunks, compressed", OK + b"transfer-encoding: chunked, gzip\r\n\r\n"),
    ("identity", OK + b"transfer-encoding: identity\r\n\r\n"),
    ("nearly chunked", OK + b"transfer-encoding: xchunked\r\n\r\n"),
    ("chunked in quotes", OK + b'transfer-encoding: "chunked"\r\n\r\n'),
    ("chunked after a tab of its own", OK + b"transfer-encoding: \x0bchunked\r\n\r\n"),
    ("chunked with a parameter", OK + b"transfer-encoding: chunked;a=b\r\n\r\n"),
    ("no encoding", OK + b"transfer-encoding:\r\n\r\n"),
    ("chunked on a folded line", OK + b"transfer-encoding:\r\n chunked\r\n\r\n"),
    ("chunks of 1.0", b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    # Chunks.
    ("a blank after a size", CHUNKED + b"1 \r\na\r\n0\r\n\r\n"),
    ("a blank before a size", CHUNKED + b" 1\r\na\r\n0\r\n\r\n"),
    ("no size", CHUNKED + b"\r\na\r\n0\r\n\r\n"),
    ("a size with a prefix", CHUNKED + b"0x1\r\na\r\n0\r\n\r\n"),
    ("a signed size", CHUNKED + b"+1\r\na\r\n0\r\n\r\n"),
    ("a negative size", CHUNKED + b"-1\r\na\r\n0\r\n\r\n"),
    ("a size that is no number", CHUNKED + b"g\r\na\r\n0\r\n\r\n"),
    ("a size beyond all measure", CHUNKED + b"fffffffffffffffff\r\na"),
    ("a chunk that is too long", CHUNKED + b"1\r\nab\r\n0\r\n\r\n"),
    ("lines of LF only", CHUNKED + b"1\na\n0\n\n"),
    ("LF after a size", CHUNKED + b"1\na\r\n0\r\n\r\n"),
    ("LF after a chunk", CHUNKED + b"1\r\na\n0\r\n\r\n"),
    ("CR in an extension", CHUNKED + b"1;a\rb\r\na\r\n0\r\n\r\n"),
    ("LF in a quoted extension", CHUNKED + b'1;a="\n"\r\na\r\n0\r\n\r\n'),
    ("a trailer without a name", CHUNKED + b"0\r\n: x\r\n\r\n"),
    ("a length for a trailer", CHUNKED + b"0\r\ncontent-length: 1\r\n\r\n"),
    # Heads.
    ("not HTTP", b"SSH-2.0-OpenSSH_9.6\r\n"),
    ("an error page alone", b"<html>no</html>"),
    ("small letters", b"http/1.1 200 OK\r\n\r\n"),
    ("ICY", b"ICY 200 OK\r\n\r\n"),
    ("RTSP", b"RTSP/1.0 200 OK\r\n\r\n"),
    ("HTTP/2", b"HTTP/2.0 200 OK\r\n\r\n"),
    ("HTTP/1.2", b"HTTP/1.2 200 OK\r\n\r\n"),
    ("HTTP/0.9", b"HTTP/0.9 200 OK\r\n\r\n"),
    ("HTTP/1.10", b"HTTP/1.10 200 OK\r\n\r\n"),
    ("a line before it", b"\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ("a blank before it", b" HTTP/1.1 200 OK\r\n\r\n"),
    ("two blanks", b"HTTP/1.1  200 OK\r\n\r\n"),
    ("a short status", b"HTTP/1.1 20 OK\r\n\r\n"),
    ("a long status", b"HTTP/1.1 2000 OK\r\n\r\n"),
    ("a status below all", b"HTTP/1.1 099 OK\r\n\r\n"),
    ("a status that is no number", b"HTTP/1.1 2x0 OK\r\n\r\n"),
    ("a NUL in the reason", b"HTTP/1.1 200 O\0K\r\n\r\n"),
    (
        "a protocol that nobody asked for",
        b"HTTP/1.1 101 x\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n",
    ),
    ("101 alone", b"HTTP/1.1 101 x\r\n\r\n"),
    ("heads of LF only", b"HTTP/1.1 200 OK\nx: y\n\n"),
    ("LF after the status", b"HTTP/1.1 200 OK\nx: y\r\n\r\n"),
    ("CR after the status", b"HTTP/1.1 200 OK\rx: y\r\n\r\n"),
    ("LF in a header", OK + b"x: y\nz: a\r\n\r\n"),
    ("CR in a header", OK + b"x: y\rz: a\r\n\r\n"),
    ("two CR", OK + b"x: y\r\r\nz: a\r\n\r\n"),
    ("a folded header", OK + b"x: y\r\n z\r\n\r\n"),
    ("a folded first header", OK + b" x: y\r\n\r\n"),
    ("a blank before a colon", OK + b"x : y\r\n\r\n"),
    ("a header without a name", OK + b": y\r\n\r\n"),
    ("a header without a colon", OK + b"x\r\n\r\n"),
    ("a foreign letter in a name", OK + b"x\xe4: y\r\n\r\n"),
    ("a NUL in a name", OK + b"x\0: y\r\n\r\n"),
    ("a NUL in a value", OK + b"x: y\0z\r\n\r\n"),
    ("a control character in a value", OK + b"x: y\x01z\r\n\r\n"),
    ("DEL in a value", OK + b"x: y\x7fz\r\n\r\n"),
]
