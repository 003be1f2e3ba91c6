"""Answers that are nearly right: known ones, right and wrong, with a few changes."""

from random import Random

from tests.libs.cortex_uplink.answers import GOOD, REFUSED, WITHOUT_BODY

CORPUS = [case[1] for case in (*GOOD, *WITHOUT_BODY)] + [case[1] for case in REFUSED]
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
    b'"',
    b"0\r\n\r\n",
    b"0",
    b"1\r\nx\r\n",
    b"ffffffff",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 x\r\n\r\n",
    b"HTTP/1.0",
    b"204",
    b"304",
    b"content-length: 1\r\n",
    b"content-length: 0\r\n",
    b"Content-Length:2\r\n",
    b"transfer-encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"connection: close\r\n",
    b"connection: keep-alive\r\n",
    b"chunked",
    b"x: y\r\n",
    b"\x80\xff",
]


def nearly_an_answer(random: Random) -> bytes:
    """Return one, changed in some places; sometimes followed by another."""
    raw = bytearray(random.choice(CORPUS))
    for _ in range(random.choice((0, 1, 1, 2, 3, 8))):
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
    if not random.randrange(8):
        raw += random.choice(CORPUS)
    return bytes(raw)


def cut(random: Random, raw: bytes) -> list[bytes]:
    """Return `raw` in a few pieces, or in many."""
    places = sorted(random.randrange(len(raw) + 1) for _ in range(random.choice((1, 2, 5, 30))))
    return [raw[start:end] for start, end in zip([0, *places], [*places, len(raw)], strict=True)]
