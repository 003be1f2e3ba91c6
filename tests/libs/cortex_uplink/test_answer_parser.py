"""What may be taken for an answer, and that it never depends on how the bytes were cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_uplink.answer_parser import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_STATUS_LINE_BYTES,
    AnswerParser,
)
from cortex_uplink.chunk_decoder import MAX_TRAILER_BYTES
from cortex_uplink.errors import MalformedAnswer
from tests.libs.cortex_uplink.answers import CHUNKED, GOOD, OK, REFUSED, WITHOUT_BODY, Read, parse


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """Return `raw` in pieces."""
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(edges)]


def bytewise(raw: bytes) -> list[bytes]:
    """Return `raw` byte by byte."""
    return [raw[at : at + 1] for at in range(len(raw))]


@pytest.mark.parametrize(("raw", "read"), [case[1:] for case in GOOD], ids=[c[0] for c in GOOD])
def test_an_answer_is_read_alike_however_it_is_cut(raw: bytes, read: Read) -> None:
    """Whole, byte by byte, and in two at every place."""
    assert parse([raw]) == read
    assert parse(bytewise(raw)) == read
    assert [parse(cut(raw, [at])) for at in range(len(raw))] == [read] * len(raw)


@pytest.mark.parametrize(
    ("raw", "read"), [case[1:] for case in WITHOUT_BODY], ids=[c[0] for c in WITHOUT_BODY]
)
def test_an_answer_to_head_has_no_body(raw: bytes, read: Read) -> None:
    """Whatever its headers say of the body that GET would have had."""
    assert parse([raw], to_head=True) == read
    assert [parse(cut(raw, [at]), to_head=True) for at in range(len(raw))] == [read] * len(raw)


@pytest.mark.parametrize("raw", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_no_answer_is_refused_however_it_is_cut(raw: bytes) -> None:
    """At once, not when the connection ends."""
    assert parse([raw]) is None
    assert parse(bytewise(raw)) is None
    assert [parse(cut(raw, [at])) for at in range(len(raw))] == [None] * len(raw)


def padded(size: int) -> bytes:
    """Return a head of `size` bytes."""
    start, end = OK + b"x: ", b"\r\n\r\n"
    return start + b"y" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize(
    "pieces", [lambda raw: [raw], lambda raw: cut(raw, list(range(0, 1 << 17, 999)))]
)
def test_a_head_is_bounded_to_the_byte(pieces: object) -> None:
    """However it arrives, and whether or not its end is there."""
    assert callable(pieces)
    assert parse(pieces(padded(MAX_HEAD_BYTES))) == Read(reusable=False)
    assert parse(pieces(padded(MAX_HEAD_BYTES + 1))) is None
    assert parse(pieces(padded(MAX_HEAD_BYTES + 5)[:-4])) is None


def test_heads_that_come_before_the_answer_are_bounded_together() -> None:
    """Nobody can be kept waiting for ever with an endless row of 1xx."""
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    many = MAX_HEAD_BYTES // len(interim)

    assert parse([interim * many]) == Read(status=0, complete=False, reusable=False)
    assert parse([interim * (many + 1)]) is None


def test_a_status_line_is_bounded() -> None:
    """A reason is a few words."""
    line = b"HTTP/1.1 200 "

    assert parse([line + b"x" * (MAX_STATUS_LINE_BYTES - len(line)) + b"\r\n\r\n"]) is not None
    assert parse([line + b"x" * (MAX_STATUS_LINE_BYTES - len(line) + 1) + b"\r\n\r\n"]) is None


def test_headers_and_trailers_are_bounded_in_number() -> None:
    """Each."""
    most = b"x: y\r\n" * (MAX_HEADERS - 1)

    assert parse([CHUNKED[:-2] + most + b"\r\n0\r\n" + most + b"x: y\r\n\r\n"]) is not None
    assert parse([CHUNKED[:-2] + most + b"x: y\r\n\r\n0\r\n\r\n"]) is None
    assert parse([CHUNKED + b"0\r\n" + most + b"x: y\r\n" * 2 + b"\r\n"]) is None


@pytest.mark.parametrize("start", [b"0\r\nx: ", b"0\r\nx", b"1;x=", b'1;x="', b"000"])
def test_framing_without_an_end_is_bounded(start: bytes) -> None:
    """A trailer, its name, an extension or a size that never ends takes no memory for ever."""
    parser = AnswerParser()
    parser.feed(CHUNKED + start)

    with pytest.raises(MalformedAnswer):  # noqa: PT012  # one of them, not the first
        for _ in range(MAX_TRAILER_BYTES // 1000 + 1):
            parser.feed(b"0" * 1000)


def test_framing_with_body_in_between_is_not_bounded() -> None:
    """A stream of single bytes goes on for as long as it likes."""
    parser = AnswerParser()
    parser.feed(CHUNKED)

    body = b"".join(parser.feed(b"1\r\nx\r\n") for _ in range(20_000))

    assert body == b"x" * (20_000)


def test_headers_of_a_1xx_are_not_the_answers() -> None:
    """Only what the last head says counts."""
    parser = AnswerParser()
    parser.feed(b"HTTP/1.1 103 x\r\nlink: a\r\n\r\n" + OK + b"X: y \r\ncontent-length: 0\r\n\r\n")

    assert parser.headers == [("x", "y"), ("content-length", "0")]


bodies = st.lists(st.binary(min_size=1, max_size=12), max_size=4)
tokens = st.text("abcXYZ-_09", min_size=1, max_size=8).map(lambda name: f"x-{name}".encode())
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12).map(str.encode)
fields = st.lists(st.tuples(tokens, values), max_size=4)


@st.composite
def answer(draw: st.DrawFn) -> tuple[bytes, Read]:
    """Return a valid answer in any of its forms, and what it says."""
    status = draw(st.sampled_from([200, 201, 404, 503]))
    parts = draw(bodies)
    head = b"HTTP/1.1 %d x\r\n" % status
    head += b"".join(b"%b: %b\r\n" % field for field in draw(fields))
    interim = b"HTTP/1.1 100 x\r\n\r\n" * draw(st.integers(0, 2))
    match draw(st.sampled_from(["length", "chunked", "close"])):
        case "length":
            body = b"".join(parts)
            raw = head + b"content-length: %d\r\n\r\n%b" % (len(body), body)
            return interim + raw, Read(status=status, body=body)
        case "close":
            body = b"".join(parts)
            return interim + head + b"\r\n" + body, Read(status=status, body=body, reusable=False)
        case _:
            trailers = draw(fields)
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            end = b"0\r\n" + b"".join(b"%b: %b\r\n" % field for field in trailers) + b"\r\n"
            raw = head + b"transfer-encoding: chunked\r\n\r\n" + chunks + end
            read = Read(
                status=status,
                body=b"".join(parts),
                trailers=tuple((n.decode().lower(), v.decode()) for n, v in trailers),
            )
            return interim + raw, read


@given(answer(), st.lists(st.integers(0, 1000), max_size=6))
def test_valid_answers_are_read_as_they_were_meant(
    made: tuple[bytes, Read], places: list[int]
) -> None:
    """Every form, cut anywhere."""
    raw, read = made

    assert parse(cut(raw, places)) == read


@given(
    answer(),
    st.integers(0, 1000),
    st.binary(max_size=3),
    st.lists(st.integers(0, 1000), max_size=3),
)
def test_a_mutated_answer_never_depends_on_the_cuts(
    made: tuple[bytes, Read], at: int, noise: bytes, places: list[int]
) -> None:
    """Noise in the middle gives the same answer, or the same refusal."""
    raw, _ = made
    at %= len(raw)
    raw = raw[:at] + noise + raw[at + len(noise) :]

    assert parse(cut(raw, places)) == parse([raw])


@given(st.lists(st.binary(max_size=40)), st.booleans())
def test_garbage_is_refused_and_nothing_else(pieces: list[bytes], to_head: bool) -> None:
    """Nothing but MalformedAnswer leaves the parser."""
    parse(pieces, to_head=to_head)
    parse([CHUNKED, *pieces], to_head=to_head)
