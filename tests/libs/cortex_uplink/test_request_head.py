"""A request's head says one thing only, whatever it is made of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_uplink.addresses import target_of
from cortex_uplink.errors import RequestRefused
from cortex_uplink.request_head import HOP_BY_HOP, prepare, whole_head

TARGET = target_of("http://node:8/v1?a=b")


def lines(
    *headers: tuple[str, str], method: str = "POST", length: int | None = 2, close: bool = False
) -> list[str]:
    """Return the lines of a head."""
    prepared = prepare(method, TARGET, headers, close=close)
    head = whole_head(prepared, length, None).decode("latin-1")
    assert head.endswith("\r\n\r\n")
    return head.removesuffix("\r\n\r\n").split("\r\n")


def test_a_head_has_what_is_needed_and_no_more() -> None:
    """No compression is asked for, so that bytes stay readable on the way."""
    assert lines(("X-Mine", "1")) == [
        "POST /v1?a=b HTTP/1.1",
        "host: node:8",
        "x-mine: 1",
        "accept-encoding: identity",
        "user-agent: cortex",
        "content-length: 2",
    ]


def test_what_the_caller_says_goes_before_our_defaults() -> None:
    """In any case of letters, and the host too."""
    assert lines(("Accept-Encoding", "gzip"), ("USER-AGENT", "x"), ("Host", "other")) == [
        "POST /v1?a=b HTTP/1.1",
        "host: other",
        "accept-encoding: gzip",
        "user-agent: x",
        "content-length: 2",
    ]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | {"content-length", "expect"}))
def test_headers_of_one_hop_are_dropped(name: str) -> None:
    """Also the length that somebody else counted."""
    assert lines((name, "9"), (name.title(), "8"), ("x", "y")) == lines(("x", "y"))


def test_headers_that_connection_names_are_dropped() -> None:
    """Wherever they stand."""
    told = lines(("x-a", "1"), ("Connection", "close, X-A"), ("connection", "x-b"), ("X-B", "2"))

    assert told == lines()


def test_a_body_without_a_length_is_announced_as_chunks() -> None:
    """And never both."""
    told = lines(length=None)

    assert told[-1] == "transfer-encoding: chunked"
    assert not any(line.startswith("content-length") for line in told)


@pytest.mark.parametrize(
    ("method", "told"), [("POST", True), ("PUT", True), ("PATCH", True), ("GET", False)]
)
def test_no_body_is_said_where_one_is_expected(method: str, told: bool) -> None:
    """A GET without a body has no length either."""
    assert ("content-length: 0" in lines(method=method, length=0)) is told


def test_closing_is_said() -> None:
    """Where no other request shall follow."""
    assert "connection: close" in lines(close=True)


@pytest.mark.parametrize(
    "header",
    [
        ("", "x"),
        ("x y", "z"),
        ("x:", "y"),
        ("x\r\ny", "z"),
        ("x\0", "y"),
        ("ä", "y"),
        ("x", "a\r\nb: c"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        ("x", "a\x7fb"),
        ("x", "€"),
        ("host", "a\r\nb: c"),
        ("connection", "a\r\nb: c"),
        ("te", "a\r\nb"),
    ],
)
def test_what_could_break_out_of_its_line_is_refused(header: tuple[str, str]) -> None:
    """Never mended: whoever sent it meant something else."""
    with pytest.raises(RequestRefused):
        lines(header)


@pytest.mark.parametrize("method", ["", "GET /", "G\r\nX", "CONNECT", "gét"])
def test_what_is_no_method_of_ours_is_refused(method: str) -> None:
    """A tunnel is none of a proxy's streams."""
    with pytest.raises(RequestRefused):
        lines(method=method)


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=6)), max_size=4))
def test_any_headers_make_one_head_or_none(headers: list[tuple[str, str]]) -> None:
    """As many lines as headers, one end, one length."""
    try:
        head = whole_head(prepare("POST", TARGET, headers), 2, None)
    except RequestRefused:
        return
    *told, end, rest = head.split(b"\r\n")
    assert (end, rest) == (b"", b"")
    assert len(told) <= 5 + len(headers)
    assert b"\r" not in b"".join(told)
    assert b"\n" not in b"".join(told)
    assert [line for line in told if line.startswith(b"content-length")] == [b"content-length: 2"]


def test_one_more_header_is_put_behind_those_that_many_share() -> None:
    """The head that is shared stays as it is."""
    prepared = prepare("POST", TARGET, [("x", "y")])
    told = whole_head(prepared, 2, ("x-request-id", "a"))

    assert b"\r\nx: y\r\n" in told
    assert b"\r\nx-request-id: a\r\ncontent-length: 2\r\n\r\n" in told
    assert whole_head(prepared, 2, None) == told.replace(b"x-request-id: a\r\n", b"")


@pytest.mark.parametrize(
    "more",
    [
        ("x", "a\r\nb: c"),
        ("x", "\u20ac"),
        ("x y", "z"),
        ("Content-Length", "9"),
        ("Transfer-Encoding", "chunked"),
        ("connection", "close"),
    ],
)
def test_one_more_header_may_not_say_what_others_do(more: tuple[str, str]) -> None:
    """Nor break out of its line."""
    with pytest.raises(RequestRefused):
        whole_head(prepare("POST", TARGET, []), 2, more)
