"""Frames, whatever the bytes look like and wherever they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects import FrameSplitter, FrameTooLarge, frame_of, json_payload, payload
from tests.libs.cortex_dialects.completions import cut

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
lines = st.sampled_from([b"data: {}", b"data: x", b": comment", b"event: ping", b"data", b"id: 7"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Return some frames, each with line ends of its own, the last one perhaps left open."""
    parts = [draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))]
    for _ in range(draw(st.integers(0, 5))):
        end = draw(line_ends)
        parts += [line + end for line in draw(st.lists(lines, min_size=1, max_size=3))]
        parts.append(end)
    parts.append(draw(st.sampled_from([b"", b"data: open"])))
    return b"".join(parts)


def frames_of(chunks: list[bytes]) -> list[bytes]:
    """Return the frames, and what was left open as the last."""
    splitter = FrameSplitter()
    frames = [frame for chunk in chunks for frame in splitter.feed(chunk)]
    return [*frames, splitter.finish()]


@given(stream=streams(), at=st.lists(st.integers(0, 200), max_size=5))
def test_where_the_bytes_are_cut_makes_no_difference(stream: bytes, at: list[int]) -> None:
    """The same payloads come out, and no byte is lost but the mark at the front."""
    whole, parts = frames_of([stream]), frames_of(cut(stream, at))

    assert list(filter(None, map(payload, parts))) == list(filter(None, map(payload, whole)))
    assert b"".join(parts) == stream.removeprefix(b"\xef\xbb\xbf")


@given(at=st.lists(st.integers(0, 60), max_size=4))
def test_every_line_end_ends_a_frame(at: list[int]) -> None:
    """LF, CRLF and CR, one after the other."""
    stream = b"data: 1\n\ndata: 2\r\n\r\ndata: 3\r\rdata: 4\n\n"

    assert [payload(f) for f in frames_of(cut(stream, at)) if f] == [b"1", b"2", b"3", b"4"]


def test_lines_of_one_frame_are_joined_and_comments_left_out() -> None:
    """As the standard has it."""
    assert payload(b": hi\nevent: x\ndata: a\ndata: b\n\n") == b"a\nb"


def test_a_frame_over_the_limit_is_an_error() -> None:
    """Whether it comes whole, in pieces, or never ends."""
    for chunks in (
        [b"data: " + b"x" * 20 + b"\n\n"],
        [b"\n", b"data: " + b"x" * 20 + b"\n\n"],
        [b"data: ", *[b"x"] * 20],
    ):
        splitter = FrameSplitter(max_frame_bytes=16)
        with pytest.raises(FrameTooLarge):
            list(map(splitter.feed, chunks))


def test_a_frame_in_very_many_pieces_costs_what_its_bytes_do() -> None:
    """A peer that sends byte by byte cannot make us copy everything each time."""
    splitter = FrameSplitter()
    for _ in range(300_000):
        assert splitter.feed(b"xxxxxxxx") == []

    assert len(splitter.finish()) == 2_400_000


@given(value=st.dictionaries(st.text(), st.text() | st.integers(-9, 9)))
def test_what_is_put_into_a_frame_comes_out_of_it(value: dict[str, object]) -> None:
    """With and without the name of an event."""
    assert json_payload(frame_of(value)) == value
    assert json_payload(frame_of(value, "name")) == value


@given(st.binary(max_size=40))
def test_no_bytes_crash_it(raw: bytes) -> None:
    """Whatever is in them."""
    for frame in frames_of([raw]):
        json_payload(frame)
