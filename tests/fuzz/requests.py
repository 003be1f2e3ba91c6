"""Requests that are nearly right: known ones, right and wrong, with a few changes."""

from random import Random

from tests.libs.cortex_uplink.requests import GOOD, REFUSED

CORPUS = [case[1] for case in GOOD] + [case[1] for case in REFUSED]
_RIGHT = [case[1] for case in GOOD if len(case[2].requests) == 1 and not case[2].over]
#: What a change puts in: everything that means something to a parser.
WORDS = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"#",
    b"0\r\n\r\n",
    b"0",
    b"1\r\nx\r\n",
    b"ffffffff",
    b"GET /x HTTP/1.1\r\nhost: b\r\n\r\n",
    b"HTTP/1.0",
    b"HEAD",
    b"http://a",
    b"content-length: 1\r\n",
    b"content-length: 0\r\n",
    b"Content-Length:2\r\n",
    b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"expect: 100-continue\r\n",
    b"connection: close\r\n",
    b"connection: keep-alive\r\n",
    b"host: b\r\n",
    b"x: y\r\n",
    b"\x80\xff",
]


def nearly_requests(random: Random, targets: tuple[bytes, ...] = ()) -> bytes:
    """Return some, one behind the other, changed in some places; to `targets` where there are."""
    raw = bytearray()
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        one = random.choice(_RIGHT if random.randrange(8) else CORPUS)
        if targets and random.randrange(4):
            one = one.replace(b"/v1", random.choice(targets), 1)
        raw += one
    for _ in range(random.choice((0, 0, 0, 1, 1, 2, 8))):
        at = random.randrange(len(raw) + 1)
        end = min(len(raw), at + random.choice((1, 1, 2, 8, 40)))
        match random.randrange(5):
            case 0:
                raw[at:at] = random.choice(WORDS)
            case 1:
                raw[at:end] = random.choice(WORDS)
            case 2:
                del raw[at:end]
            case 3:
                raw[at:at] = raw[at:end]
            case _:
                raw[at:end] = random.randbytes(end - at)
    return bytes(raw)
