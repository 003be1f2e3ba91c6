"""Chunks taken apart, and when they may pass as they are."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_uplink.chunk_decoder import (
    MAX_LINE_BYTES,
    MAX_TRAILER_BYTES,
    ChunkDecoder,
    MalformedChunks,
    whole_frames,
)

FRAME = b"data: {}\n\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def decode(pieces: list[bytes]) -> tuple[bytes, bytes | None] | None:
    """Return the body and what is behind it, None where it has no end; None: it is malformed."""
    decoder, parts = ChunkDecoder(), list[bytes]()
    rest: bytes | None = None
    try:
        for piece in pieces:
            if rest is not None:
                rest += piece
            else:
                rest = decoder.feed(piece, parts)
    except MalformedChunks:
        return None
    return b"".join(parts), rest


def in_steps(raw: bytes, step: int) -> list[bytes]:
    """Return `raw` in pieces of `step` bytes."""
    return [raw[at : at + step] for at in range(0, len(raw), step)]


@pytest.mark.parametrize("step", [7, 1000, 1 << 20])
def test_a_line_is_bounded_to_the_byte(step: int) -> None:
    """However it comes."""
    fits = b"1;" + b"x" * (MAX_LINE_BYTES - 2) + b"\r\na\r\n0\r\n\r\n"
    too_long = b"1;x" + fits[2:]

    assert decode(in_steps(fits, step)) == (b"a", b"")
    assert decode(in_steps(too_long, step)) is None


@pytest.mark.parametrize("step", [7, 1000, 1 << 20])
def test_trailers_are_bounded_to_the_byte(step: int) -> None:
    """With the blank line behind them, however they come."""
    fits = b"0\r\nx:" + b"y" * (MAX_TRAILER_BYTES - 6) + b"\r\n\r\n"
    too_long = fits.replace(b"x:", b"x:y")

    assert decode(in_steps(fits, step)) == (b"", b"")
    assert decode(in_steps(too_long, step)) is None


def test_it_is_known_when_the_next_byte_begins_a_chunk() -> None:
    """Only then may whole chunks be looked for."""
    decoder, parts = ChunkDecoder(), list[bytes]()
    told = []
    for byte in b"2\r\nab\r\n0\r\nx: y\r\n":
        decoder.feed(bytes([byte]), parts)
        told.append(decoder.between)

    assert [at for at, between in enumerate(told) if between] == [6]


def test_trailers_are_told_as_lines() -> None:
    """And what lies behind them is the next message's."""
    decoder = ChunkDecoder()

    assert decoder.feed(b"0\r\na: b\r\nc:\r\n\r\nrest", []) == b"rest"
    assert decoder.trailers == b"a: b\r\nc:\r\n"


@given(
    st.lists(st.binary(min_size=1, max_size=20), max_size=4),
    st.binary(max_size=4),
    st.lists(st.integers(0, 200), max_size=5),
)
def test_chunks_are_put_together_however_they_are_cut(
    parts: list[bytes], rest: bytes, places: list[int]
) -> None:
    """And nothing behind them is taken."""
    raw = b"".join(map(chunk, parts)) + b"0\r\n\r\n" + rest
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]

    pieces = [raw[start:end] for start, end in itertools.pairwise(edges)]
    assert decode(pieces) == (b"".join(parts), rest)


@pytest.mark.parametrize(
    ("data", "frames"),
    [
        (chunk(FRAME), 1),
        (chunk(FRAME) * 3, 3),
        (chunk(FRAME + FRAME), 1),
        (b"", 0),
        (chunk(FRAME)[:-1], 0),
        (chunk(FRAME)[:-2], 0),
        (chunk(FRAME) + b"a", 0),
        (chunk(FRAME) + b"a\r", 0),
        (chunk(FRAME) + b"a\r\n", 0),
        (chunk(FRAME) + chunk(FRAME)[:-1], 0),
        (chunk(FRAME) + b"\r\n", 0),
        (chunk(FRAME[:-1]), 0),
        (chunk(FRAME) + chunk(b"data: {}"), 0),
        (chunk(FRAME) + b"0\r\n\r\n", 0),
        (b"0" + chunk(FRAME), 0),
        (chunk(FRAME).replace(b"\r\n", b";x\r\n", 1), 0),
        (b"A\r\n" + FRAME + b"\r\n", 0),
        (b"-1\r\n" + FRAME + b"\r\n", 0),
        (chunk(FRAME)[1:], 0),
        (FRAME, 0),
        (chunk(b"x" * 5000 + b"\n\n"), 0),
    ],
)
def test_chunks_that_may_pass_are_whole_and_end_whole_frames(data: bytes, frames: int) -> None:
    """Whatever is cut, odd or the last goes the long way."""
    assert whole_frames(data) == frames


@pytest.mark.parametrize("size", range(2, 64))
def test_a_size_that_is_cut_in_its_lines_end_is_no_chunk(size: int) -> None:
    """Whatever it says: it once led back to the chunk before it, for ever."""
    for first in range(2, 64):
        data = chunk(b"x" * (first - 2) + b"\n\n")
        assert not whole_frames(data + b"%x\r" % size)
        assert not whole_frames(data + b"%x" % size)


@given(
    st.lists(st.sampled_from([FRAME, b"data: ab\n\n", b": x\n\n", b"x", b"\n\n"]), max_size=4),
    st.integers(0, 80),
    st.integers(0, 80),
    st.binary(max_size=2),
)
def test_what_may_pass_is_read_as_whole_chunks_by_whoever_gets_it(
    parts: list[bytes], start: int, end: int, noise: bytes
) -> None:
    """Whatever of a stream it is."""
    raw = b"".join(map(chunk, parts))
    data = (raw + noise)[start % (len(raw) + 1) :][:end]
    if whole_frames(data):
        decoder, body = ChunkDecoder(), list[bytes]()
        assert decoder.feed(data, body) is None
        assert decoder.between
        assert all(part.endswith(b"\n\n") for part in body)
