"""Reading along in a stream changes nothing that it should not."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects import CompletionStream, FrameSplitter, Usage, UsageChunk
from tests.libs.cortex_dialects.streams import DONE, HELLO, ROLE, USAGE, delta, frame


def run(stream: CompletionStream, *chunks: bytes) -> bytes:
    """Feed everything and return what came out."""
    return b"".join(stream.feed(chunk) for chunk in chunks) + stream.finish()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data` cut at these places."""
    edges = [0, *sorted(cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(st.integers(0, len(HELLO)), max_size=8), st.sampled_from(UsageChunk))
def test_the_cuts_of_the_bytes_change_nothing(cuts: list[int], usage: UsageChunk) -> None:
    """Any way of slicing gives the same bytes and the same findings as one read."""
    sliced, whole = CompletionStream(usage), CompletionStream(usage)

    assert run(sliced, *pieces(HELLO, cuts)) == run(whole, HELLO)
    assert (sliced.usage, sliced.finish_reason, sliced.done) == (
        whole.usage,
        whole.finish_reason,
        whole.done,
    )


@given(st.lists(st.integers(0, len(HELLO)), max_size=8))
def test_a_passing_stream_is_forwarded_to_the_byte(cuts: list[int]) -> None:
    """Bytes are moved, not rebuilt."""
    assert run(CompletionStream(), *pieces(HELLO, cuts)) == HELLO


def test_usage_and_finish_are_read() -> None:
    """Counts, cached counts, and the reason."""
    stream = CompletionStream()
    run(stream, HELLO)

    assert stream.usage == Usage(prompt=5, completion=2, cached=3)
    assert stream.finish_reason == "stop"
    assert stream.complete


def test_a_client_that_did_not_ask_gets_no_usage_chunk() -> None:
    """It is counted all the same."""
    stream = CompletionStream(UsageChunk.WITHHOLD)

    assert run(stream, HELLO) == HELLO.replace(frame(USAGE), b"")
    assert stream.usage is not None


def test_usage_inside_a_finish_chunk_is_not_withheld() -> None:
    """Only the closing chunk with empty choices is ours to take away."""
    last = frame({**delta(None, finish_reason="stop"), "usage": USAGE["usage"]})
    stream = CompletionStream(UsageChunk.WITHHOLD)

    assert run(stream, last + DONE) == last + DONE
    assert stream.usage == Usage(prompt=5, completion=2, cached=3)


def test_a_missing_usage_chunk_is_supplied_before_the_end() -> None:
    """Every stream of a neuron ends with one."""
    last = frame({**delta(None, finish_reason="stop"), "usage": USAGE["usage"]})

    out = run(CompletionStream(UsageChunk.ENSURE), last + DONE)

    assert (
        out
        == last
        + frame(
            {
                "id": "c1",
                "created": 7,
                "model": "m",
                "object": "chat.completion.chunk",
                "choices": [],
                "usage": USAGE["usage"],
            }
        )
        + DONE
    )


def test_a_role_is_not_a_token() -> None:
    """The first token is the first frame with text, thoughts or a tool call."""
    stream = CompletionStream()
    stream.feed(frame(ROLE))
    before = stream.first_token_seen
    stream.feed(frame(delta("x")))

    assert (before, stream.first_token_seen) == (False, True)


def test_an_error_frame_is_a_failure_not_an_end() -> None:
    """A stream that failed is not complete."""
    stream = CompletionStream()
    run(stream, frame(delta("x")) + frame({"error": {"code": "boom", "message": "no"}}))

    assert stream.failure == {"code": "boom", "message": "no"}
    assert not stream.complete


def test_a_stream_cut_short_is_not_complete() -> None:
    """No finish reason and no [DONE]: somebody was lost."""
    stream = CompletionStream()
    run(stream, frame(ROLE) + frame(delta("x")))

    assert not stream.complete


def test_text_that_looks_like_usage_is_not_usage() -> None:
    """A model that writes about usage cannot fool the account."""
    stream = CompletionStream()
    run(stream, frame(delta('{"usage": {"prompt_tokens": 999}, "error": 1} [DONE]')))

    assert stream.usage is None
    assert not stream.done
    assert stream.failure is None


def test_usage_of_parallel_answers_adds_up() -> None:
    """With n = 2 engines send one usage chunk an answer; the prompt counts once."""
    stream = CompletionStream()
    run(stream, frame(USAGE) + frame(USAGE) + DONE)

    assert stream.usage == Usage(prompt=5, completion=4, cached=3)


def test_crlf_frames_are_frames() -> None:
    """Some servers end lines the other way."""
    assert len(FrameSplitter().feed(b"data: a\r\n\r\ndata: b\r\n\r\n")) == 2
