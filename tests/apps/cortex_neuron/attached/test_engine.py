"""What an attached server refuses, in the words that are a client's to read."""

from typing import Any

import pytest

from cortex_neuron.attached.engine import AttachedEngine
from cortex_neuron.harness import Engine

ENGINE = AttachedEngine(
    server="big",
    url="http://127.0.0.1:1",
    headers={"authorization": "Bearer hidden"},
    slots=4,
    context=None,
    capabilities=("chat",),
)


@pytest.mark.parametrize(
    ("status", "body", "told", "code"),
    [
        (400, {"error": {"message": "bad top_p"}}, 400, "invalid_request_body"),
        (400, {"message": "maximum context length is 4096"}, 400, "context_length_exceeded"),
        (422, {"detail": "no"}, 400, "invalid_request_body"),
        (413, {}, 413, "request_too_large"),
        (429, {}, 503, "rate_limit_exceeded"),
        (401, {}, 503, "service_unavailable"),
        (404, {}, 503, "service_unavailable"),
        (503, {}, 503, "service_unavailable"),
        (500, {"error": "Traceback: inside"}, 502, "upstream_malformed_response"),
        (302, None, 502, "upstream_malformed_response"),
    ],
)
def test_a_refusal_keeps_what_is_the_clients(status: int, body: Any, told: int, code: str) -> None:
    """What is wrong with the request in the server's words, what is wrong with it in ours."""
    error = ENGINE.refusal(status, body)

    assert (error.status, error.code) == (told, code)
    assert "inside" not in error.message


def test_it_is_an_engine_that_hides_its_token() -> None:
    """The protocol holds, and a log that shows it does not show the token."""
    engine: Engine = ENGINE

    assert engine.pid is None
    assert "hidden" not in repr(engine)
