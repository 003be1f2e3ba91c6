"""An error that our own engine raised is the same error on the node's side."""

from typing import Any

import pytest

from cortex_core.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    QueueFull,
    RequestTooLarge,
    ShuttingDown,
    Unavailable,
    UpstreamMalformed,
    envelope,
)
from cortex_neuron.exllama.refusals import refusal


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("bad", code="unsupported_parameter", param="n"),
        InvalidRequest("long", code="context_length_exceeded", extra={"max": 5, "prompt_len": 9}),
        RequestTooLarge("large"),
        QueueFull("full"),
        ShuttingDown("bye"),
        Unavailable("memory", code="out_of_memory"),
        InternalError("ours"),
    ],
)
def test_an_error_comes_over_as_it_was(error: ApiError) -> None:
    """Kind, code, parameter and diagnostics."""
    found = refusal(error.status, envelope(error))

    assert type(found) is type(error)
    assert (found.message, found.code, found.param) == (error.message, error.code, error.param)
    assert found.extra == error.extra


@pytest.mark.parametrize(
    ("error", "kind"),
    [(InternalError("ours"), InternalError), (Unavailable("x", code="device_fault"), Unavailable)],
)
def test_an_error_inside_a_stream_is_not_the_clients(error: ApiError, kind: type[ApiError]) -> None:
    """It comes without a status: its type says whose it is."""
    assert type(refusal(400, envelope(error))) is kind


@pytest.mark.parametrize(
    "body", [None, {}, {"error": "no"}, {"error": {}}, {"error": {"message": 7}}, [], "text"]
)
def test_nonsense_is_a_failure_of_the_engine(body: Any) -> None:
    """Nothing of it is shown."""
    assert isinstance(refusal(500, body), UpstreamMalformed)


def test_an_unknown_status_is_a_failure_of_the_engine() -> None:
    """A teapot is none of ours."""
    assert isinstance(refusal(418, envelope(InvalidRequest("x"))), UpstreamMalformed)
