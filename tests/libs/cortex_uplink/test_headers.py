"""Looking up an answer's headers."""

from cortex_uplink import Headers

RAW = [("content-type", "text/plain"), ("x", "1"), ("x", "güt")]


def test_headers_are_found_in_any_case() -> None:
    """As every HTTP library has it."""
    headers = Headers(RAW)

    assert headers["content-type"] == headers["CONTENT-TYPE"] == "text/plain"
    assert headers.get("Retry-After", "none") == "none"
    assert "CONTENT-type" in headers


def test_a_header_that_came_twice_has_both_values() -> None:
    """Joined as RFC 9110 allows; as they came in `raw`."""
    headers = Headers(RAW)

    assert dict(headers) == {"content-type": "text/plain", "x": "1, güt"}
    assert len(headers) == 2
    assert headers.raw == RAW
