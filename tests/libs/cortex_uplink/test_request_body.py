"""Bodies put together from what comes, and what lies behind them left alone."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest, RequestTooLarge
from cortex_uplink.request_body import Body, ChunkedBody, LengthBody


def put_together(body: Body, pieces: list[bytes]) -> tuple[bytes, bytes | None, int]:
    """Return the whole body, what is behind it (None: it has no end), how much was received."""
    rest: bytes | None = None
    for piece in pieces:
        rest = body.feed(piece) if rest is None else rest + piece
    return body.take(), rest, body.received


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """Return `raw` in pieces."""
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(edges)]


@given(st.binary(max_size=30), st.binary(max_size=5), st.lists(st.integers(0, 40), max_size=6))
def test_a_body_of_known_length_ends_there(content: bytes, rest: bytes, places: list[int]) -> None:
    """However it is cut, and whatever follows."""
    body = LengthBody(len(content), 30)

    assert put_together(body, cut(content + rest, places)) == (content, rest, len(content))


@given(
    st.lists(st.binary(min_size=1, max_size=9), max_size=4),
    st.binary(max_size=5),
    st.lists(st.integers(0, 80), max_size=6),
)
def test_a_body_in_chunks_ends_with_the_last(
    parts: list[bytes], rest: bytes, places: list[int]
) -> None:
    """What follows is the next request's."""
    raw = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n" + rest
    content = b"".join(parts)

    told = put_together(ChunkedBody(36), cut(raw, places))
    assert told == (content, rest, len(content))


@pytest.mark.parametrize("content", [b"abc", b""])
def test_a_body_that_comes_at_once_is_not_copied(content: bytes) -> None:
    """It is most of them."""
    body = LengthBody(len(content), 3)

    assert body.feed(content) == b""
    assert body.take() is content


def test_a_body_that_is_announced_too_long_is_not_waited_for() -> None:
    """Nothing of it is read."""
    LengthBody(3, 3)
    with pytest.raises(RequestTooLarge, match="request_max_mb = 1 MiB"):
        LengthBody((1 << 20) + 1, 1 << 20)


def test_chunks_are_too_many_as_soon_as_they_are() -> None:
    """Not when the last has come, and a big one before it is whole."""
    body = ChunkedBody(3)
    assert body.feed(b"3\r\nabc\r\n") is None
    with pytest.raises(RequestTooLarge):
        body.feed(b"ff\r\nd")


def test_what_is_wrong_with_chunks_is_said() -> None:
    """To the one who sent them."""
    with pytest.raises(InvalidRequest, match="the request's body is malformed: a chunk's size"):
        ChunkedBody(3).feed(b"x\r\n")
