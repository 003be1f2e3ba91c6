"""How long a model stays afterwards, as clients write it."""

from math import inf

import pytest

from cortex_dialects import BadBody, parse_keep_alive, read_front, with_fields


@pytest.mark.parametrize(
    ("value", "secs"),
    [
        (300, 300.0),
        (0, 0.0),
        (1.5, 1.5),
        ("300", 300.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        (-1, inf),
        ("-1", inf),
        ("-1m", inf),
    ],
)
def test_times_are_understood(value: object, secs: float) -> None:
    """Numbers, Ollama's units, and `for ever`."""
    assert parse_keep_alive(value) == secs


@pytest.mark.parametrize(
    "value", [None, True, "", "soon", "5 m", "m", "5m!", [], {}, float("nan"), "9" * 99, "1e9"]
)
def test_anything_else_is_refused(value: object) -> None:
    """With what may stand there."""
    with pytest.raises(ValueError, match="keep_alive"):
        parse_keep_alive(value)


def test_the_front_carries_it() -> None:
    """And the engine never sees it."""
    front = read_front(b'{"model":"m","keep_alive":"2m"}')

    assert front.keep_alive_secs == 120.0
    assert with_fields(front, keep_alive=None) == b'{"model":"m","keep_alive":null}'


def test_a_bad_one_is_the_clients_mistake() -> None:
    """400 with the field's name."""
    with pytest.raises(BadBody) as refused:
        read_front(b'{"model":"m","keep_alive":"soon"}')

    assert refused.value.param == "keep_alive"
