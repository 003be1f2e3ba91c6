"""What a URL asks for, and what is no URL of ours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_uplink.addresses import Origin, Target, target_of
from cortex_uplink.errors import RequestRefused

GOOD = [
    ("http://node", Target(Origin("node", 80), "/", "node")),
    ("http://node:80/a", Target(Origin("node", 80), "/a", "node")),
    ("http://Node:13131/a/b?c=d&e", Target(Origin("node", 13131), "/a/b?c=d&e", "node:13131")),
    ("http://127.0.0.1:1/%20", Target(Origin("127.0.0.1", 1), "/%20", "127.0.0.1:1")),
    ("http://[::1]:8/", Target(Origin("::1", 8), "/", "[::1]:8")),
    ("http://[::1]?a", Target(Origin("::1", 80), "/?a", "[::1]")),
    ("http://node/a#b", Target(Origin("node", 80), "/a", "node")),
    ("http://node/a@b\\c:80", Target(Origin("node", 80), "/a@b\\c:80", "node")),
    ("https://node/", Target(Origin("node", 443, tls=True), "/", "node")),
    ("https://node:80/", Target(Origin("node", 80, tls=True), "/", "node:80")),
    (
        "http+unix://%2Frun%2FAn%20engine.sock/v1?a",
        Target(Origin("", 0, socket_path="/run/An engine.sock"), "/v1?a", "localhost"),
    ),
]


@pytest.mark.parametrize(("url", "target"), GOOD)
def test_a_url_says_where_and_what(url: str, target: Target) -> None:
    """The default port is left out of the `Host` header."""
    assert target_of(url) == target


@pytest.mark.parametrize(
    "url",
    [
        "",
        "node",
        "/v1",
        "ftp://node/",
        "unix:///run/a.sock",
        "http://",
        "http:///a",
        "http://:80/",
        "http://node:x/",
        "http://node:99999/",
        "http://node:-1/",
        "http://[::1/",
        "http://[node]/",
        "http://no de/",
        "http://node\r\nx: y/",
        "http://node/a\r\nx: y",
        "http://node/a\nb",
        "http://node/a\tb",
        "http://node/a b",
        "http://node/\0",
        "http://node/\x7f",
        "http://node/ä",
        "http://nöde/",
        "http://user@node/",
        "http://user:secret@node/",
        "http://node\\@evil/",
        "http+unix://run%2Fa.sock/",
        "http+unix:///a",
        "http+unix://%2Frun%00/",
    ],
)
def test_what_is_no_url_of_ours_is_refused(url: str) -> None:
    """Nothing that could end a line, and nobody's password."""
    with pytest.raises(RequestRefused):
        target_of(url)


@given(st.text() | st.builds("http://{}".format, st.text()))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    """What is taken cannot break out of its line."""
    try:
        target = target_of(text)
    except RequestRefused:
        return
    line = target.path + target.authority
    assert line.isascii()
    assert line.isprintable()
    assert " " not in line


def test_an_origin_reads_as_where_it_leads() -> None:
    """For the log."""
    assert str(Origin("node", 80)) == "node:80"
    assert str(Origin("", 0, socket_path="/run/a.sock")) == "/run/a.sock"
