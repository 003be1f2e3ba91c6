"""What is wrong with a body is said precisely."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects import BadBody, read_front, with_fields


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        (b"", "malformed_json", None),
        (b"{", "malformed_json", None),
        (b"[]", "invalid_request_body", None),
        (b'"text"', "invalid_request_body", None),
        (b"{}", "missing_model_field", "model"),
        (b'{"model": null}', "missing_model_field", "model"),
        (b'{"model": 3}', "invalid_request_body", "model"),
        (b'{"model": " "}', "invalid_request_body", "model"),
        (b'{"model": "m", "stream": "yes"}', "invalid_request_body", "stream"),
        (b'{"model": "m", "stream_options": 1}', "invalid_request_body", "stream_options"),
    ],
)
def test_a_bad_body_is_refused_with_code_and_param(
    raw: bytes, code: str, param: str | None
) -> None:
    """One code for each way to be wrong."""
    with pytest.raises(BadBody) as refused:
        read_front(raw)

    assert (refused.value.code, refused.value.param) == (code, param)


@given(st.binary(max_size=64))
def test_no_bytes_crash_it(raw: bytes) -> None:
    """Hostile bodies get a BadBody and nothing else."""
    try:
        read_front(raw)
    except BadBody:
        return


def test_the_front_says_what_matters() -> None:
    """Model, stream, and whether usage was asked for."""
    front = read_front(
        b'{"model": "m", "stream": true, "stream_options": {"include_usage": true}, "x": 1}'
    )

    assert (front.model, front.stream, front.wants_usage) == ("m", True, True)


def test_usage_is_wanted_only_on_streams() -> None:
    """Without stream there is no usage chunk to want."""
    front = read_front(b'{"model": "m", "stream_options": {"include_usage": true}}')

    assert not front.wants_usage


def test_replacing_a_field_leaves_the_rest() -> None:
    """An alias changes the model's name only."""
    front = read_front(b'{"model": "alias", "messages": [], "seed": 1}')

    assert with_fields(front, model="m") == b'{"model":"m","messages":[],"seed":1}'
