"""What may be taken for a request, and that it never depends on how the bytes were cut."""

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest, RequestTooLarge
from cortex_uplink.request_parser import MAX_HEAD_BYTES, MAX_HEADERS, RequestParser
from tests.fuzz.opinion import of_requests, sees_no_other
from tests.fuzz.requests import CORPUS, WORDS
from tests.libs.cortex_uplink.requests import (
    CHUNKED,
    GOOD,
    MAX_BODY_BYTES,
    POST,
    REFUSED,
    Heard,
    Seen,
    head_of,
    hear,
)


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """Return `raw` in pieces."""
    edges = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(edges)]


def bytewise(raw: bytes) -> list[bytes]:
    """Return `raw` byte by byte."""
    return [raw[at : at + 1] for at in range(len(raw))]


@pytest.mark.parametrize(("raw", "heard"), [case[1:] for case in GOOD], ids=[c[0] for c in GOOD])
def test_requests_are_read_alike_however_they_are_cut(raw: bytes, heard: Heard) -> None:
    """Whole, byte by byte, and in two at every place."""
    assert hear([raw]) == heard
    assert hear(bytewise(raw)) == heard
    assert [hear(cut(raw, [at])) for at in range(len(raw))] == [heard] * len(raw)


@pytest.mark.parametrize("raw", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_no_request_is_refused_however_it_is_cut(raw: bytes) -> None:
    """At once, and never read as another."""
    refused = Heard(refused=True, over=True)

    assert hear([raw]) == refused
    assert hear(bytewise(raw)) == refused
    assert [hear(cut(raw, [at])) for at in range(len(raw))] == [refused] * len(raw)


@pytest.mark.parametrize("raw", [case[1] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_is_refused_is_so_behind_another_too(raw: bytes) -> None:
    """The one before it is answered, and nothing behind it is looked for."""
    first = POST + b"content-length: 1\r\n\r\na"

    assert hear([first + raw + first]) == Heard(
        requests=(Seen("POST", "/v1", b"a"),), refused=True, over=True
    )


def test_h11_sees_no_other_requests_in_what_we_take_for_some() -> None:
    """What one of two hops reads differently is how a request is smuggled past the other."""
    assert [raw for raw in CORPUS if not sees_no_other(hear([raw]), raw)] == []
    assert sum(bool(hear([raw]).requests and of_requests(raw)[0]) for raw in CORPUS) > 30


def test_a_head_says_what_was_sent() -> None:
    """Names in small letters, values without the blanks around them, repeated ones as a list."""
    head = head_of(b"PUT /a/b?c=d?e HTTP/1.1\r\nHost: a\r\nX-Y: \t1 2 \r\nx-y:3\r\nempty:\r\n\r\n")

    assert (head.method, head.target, head.path) == ("PUT", "/a/b?c=d?e", "/a/b")
    assert head.headers == {"host": "a", "x-y": "1 2, 3", "empty": ""}
    assert (head.keep_alive, head.modern) == (True, True)


@pytest.mark.parametrize(
    ("told", "keep_alive", "modern"),
    [
        (b"HTTP/1.1\r\nhost: a", True, True),
        (b"HTTP/1.1\r\nhost: a\r\nconnection: Keep-Alive", True, True),
        (b"HTTP/1.1\r\nhost: a\r\nconnection: te,CLOSE ", False, True),
        (b"HTTP/1.0", False, False),
        (b"HTTP/1.0\r\nconnection: keep-alive", True, False),
        (b"HTTP/1.0\r\nconnection: close, keep-alive", False, False),
    ],
)
def test_who_keeps_a_connection(told: bytes, keep_alive: bool, modern: bool) -> None:
    """By the version, unless the client says otherwise."""
    head = head_of(b"GET / " + told + b"\r\n\r\n")

    assert (head.keep_alive, head.modern) == (keep_alive, modern)


def padded(size: int) -> bytes:
    """Return a head of `size` bytes."""
    start, end = POST + b"x: ", b"\r\n\r\n"
    return start + b"y" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize("step", [1 << 17, 999, 7])
def test_a_head_is_bounded_to_the_byte(step: int) -> None:
    """However it arrives, and whether or not its end is there."""

    def heard(raw: bytes) -> Heard:
        return hear([raw[at : at + step] for at in range(0, len(raw), step)])

    assert heard(padded(MAX_HEAD_BYTES)).requests == (Seen("POST", "/v1"),)
    assert heard(padded(MAX_HEAD_BYTES + 1)).refused
    assert heard(padded(MAX_HEAD_BYTES + 5)[:-4]).refused


def test_headers_are_bounded_in_number() -> None:
    """Their size alone would let thousands through."""
    most = POST + b"x:\r\n" * (MAX_HEADERS - 1) + b"\r\n"

    assert hear([most]).requests
    with pytest.raises(RequestTooLarge):
        RequestParser(9).feed(POST + b"x:\r\n" * MAX_HEADERS + b"\r\n")


def test_a_body_is_bounded_to_the_byte() -> None:
    """In either form: announced, or as it comes."""
    full = b"x" * MAX_BODY_BYTES

    assert hear([POST + b"content-length: %d\r\n\r\n" % len(full) + full]).requests[0].body == full
    chunked = CHUNKED + b"%x\r\n%b\r\n" % (len(full), full)
    assert hear([chunked + b"0\r\n\r\n"]).requests[0].body == full
    for raw in (POST + b"content-length: %d\r\n\r\n" % (len(full) + 1), chunked + b"1\r\nx\r\n"):
        with pytest.raises(RequestTooLarge):
            RequestParser(MAX_BODY_BYTES).feed(raw)


def test_it_is_known_who_waits_to_be_told_that_a_body_is_wanted() -> None:
    """From its head on, until the body is there. One of HTTP/1.0 never does."""
    head = b"content-length: 2\r\nexpect: 100-continue\r\n\r\n"
    parser = RequestParser(MAX_BODY_BYTES)

    told = []
    for piece in (POST + head[:-1], head[-1:], b"a", b"b"):
        parser.feed(piece)
        told.append(parser.expects_continue)
    assert told == [False, True, True, False]

    old = RequestParser(MAX_BODY_BYTES)
    assert old.feed(b"POST / HTTP/1.0\r\n" + head) is None
    assert not old.expects_continue


def test_what_comes_behind_a_request_is_kept_for_the_next() -> None:
    """It is idle only when there is nothing of one."""
    parser = RequestParser(MAX_BODY_BYTES)
    assert parser.idle
    assert parser.feed(POST + b"content-length: 1\r\n\r\naPO") is not None
    assert (parser.ahead, parser.idle) == (b"PO", False)
    assert parser.feed(b"") is None
    assert parser.feed(POST[2:] + b"\r\n") is not None
    assert parser.idle


@pytest.mark.parametrize("start", [b"0\r\nx: ", b"0\r\nx", b"1;x=", b"000"])
def test_framing_without_an_end_is_bounded(start: bytes) -> None:
    """A trailer, its name, an extension or a size that never ends takes no memory for ever."""
    parser = RequestParser(MAX_BODY_BYTES)
    parser.feed(CHUNKED + start)

    with pytest.raises(InvalidRequest):  # noqa: PT012  # one of them, not the first
        for _ in range(20):
            parser.feed(b"0" * 1000)


@pytest.mark.parametrize("piece", [b"x", b"1\r\nx\r\n"], ids=["length", "chunks"])
def test_a_body_that_comes_byte_by_byte_takes_no_more_than_its_size(piece: bytes) -> None:
    """Not the many times as much that a list of its bytes would."""
    size = 100_000
    parser = RequestParser(size + 1)
    parser.feed(POST + b"content-length: %d\r\n\r\n" % (size + 1) if len(piece) == 1 else CHUNKED)
    tracemalloc.start()
    try:
        for _ in range(size):
            parser.feed(piece)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert parser.body is not None
    assert parser.body.received == size
    assert taken < 2 * size


targets = st.sampled_from(["/", "/v1/chat/completions", "/v1?a=b", "*", "//x"])
tokens = st.text("abcXYZ-_09", min_size=1, max_size=8).map(lambda name: f"x-{name}".encode())
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=12).map(str.encode)
fields = st.lists(st.tuples(tokens, values), max_size=4)


@st.composite
def request(draw: st.DrawFn) -> tuple[bytes, Seen]:
    """Return a valid request in any of its forms, and what it says."""
    method, target = draw(st.sampled_from(["GET", "POST", "PUT", "X-Y"])), draw(targets)
    parts = draw(st.lists(st.binary(min_size=1, max_size=12), max_size=4))
    head = f"{method} {target} HTTP/1.1\r\nHost: a\r\n".encode()
    head += b"".join(b"%b: %b\r\n" % field for field in draw(fields))
    body = b"".join(parts)
    if draw(st.booleans()):
        raw = head + b"content-length: %d\r\n\r\n%b" % (len(body), body)
    else:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        trailers = b"".join(b"%b: %b\r\n" % field for field in draw(fields))
        raw = head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + trailers + b"\r\n"
    return raw, Seen(method, target, body)


@given(st.lists(request(), max_size=3), st.lists(st.integers(0, 1000), max_size=6))
def test_valid_requests_are_read_as_they_were_meant(
    made: list[tuple[bytes, Seen]], places: list[int]
) -> None:
    """One behind the other, cut anywhere."""
    raw = b"".join(one for one, _ in made)

    assert hear(cut(raw, places)) == Heard(requests=tuple(seen for _, seen in made))


@given(
    st.lists(st.one_of(request().map(lambda made: made[0]), st.sampled_from(CORPUS)), min_size=1),
    st.integers(0, 1000),
    st.one_of(st.binary(max_size=3), st.sampled_from(WORDS)),
    st.booleans(),
    st.lists(st.integers(0, 1000), max_size=3),
)
def test_spoiled_requests_never_depend_on_the_cuts(
    made: list[bytes], at: int, noise: bytes, instead: bool, places: list[int]
) -> None:
    """Noise gives the same requests or the same refusal, and none that h11 does not see."""
    raw = b"".join(made)
    at %= len(raw) + 1
    raw = raw[:at] + noise + raw[at + len(noise) * instead :]
    whole = hear([raw])

    assert hear(cut(raw, places)) == whole
    assert sees_no_other(whole, raw)


@given(st.lists(st.binary(max_size=40)))
def test_garbage_is_refused_or_waited_on_and_nothing_else(pieces: list[bytes]) -> None:
    """Nothing but an error that the client can be told leaves the parser."""
    hear(pieces)
    hear([CHUNKED, *pieces])
    hear([POST, *pieces])
