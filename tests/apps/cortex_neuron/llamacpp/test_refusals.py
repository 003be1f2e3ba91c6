"""llama.cpp's refusals in our words: the client's mistakes are told apart from the engine's."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import ApiError, InvalidRequest, UpstreamMalformed
from cortex_neuron.llamacpp.refusals import refusal

PARSER = "Unable to generate parser for this template. Automatic parser generation failed: "
RAISED = (
    f"{PARSER}\n------------\nWhile executing CallExpression at line 1, column 9 in source:\n"
    "...{{- raise_exception('No.') }}...\n    ^\nError: Jinja Exception: No."
)


def told(status: int, message: str, kind: str = "server_error", **more: Any) -> ApiError:
    """Return our error for theirs."""
    return refusal(status, {"error": {"message": message, "type": kind, **more}})


@pytest.mark.parametrize(
    ("status", "message", "code", "part"),
    [
        (500, "image input is not supported - hint: …mmproj", "vision_unsupported", "cannot see"),
        (500, "audio input is not supported - hint: …mmproj", "audio_unsupported", "cannot hear"),
        (400, "unsupported content[].type", "invalid_request_body", "content part"),
        (400, RAISED, "template_render_failed", "conversation: No."),
        (400, f"{PARSER}no idea", "template_render_failed", "says no reason"),
        (500, "While executing X\nError: Callee", "template_render_failed", "says no reason"),
        (400, f"{PARSER}JSON schema error at #: bad", "invalid_request_body", "at #: bad"),
        (
            500,
            "Failed to parse messages: [json.exception.type_error.302] type must be string",
            "invalid_request_body",
            "'messages' cannot be read: type must be string",
        ),
        (
            500,
            "Failed to parse tools: Missing tool type: {}; tools = [{}]",
            "invalid_request_body",
            "'tools' cannot be read: Missing tool type: {}",
        ),
        (400, "Field 'stop': no", "invalid_request_body", "Field 'stop': no"),
    ],
)
def test_a_mistake_of_the_client_is_a_400(status: int, message: str, code: str, part: str) -> None:
    """Whatever status llama.cpp gives it, with a reason and nothing of the inside."""
    error = told(status, message)

    assert (error.status, error.code) == (400, code)
    assert part in error.message
    assert "mmproj" not in error.message
    assert "raise_exception" not in error.message


def test_a_prompt_over_the_context_tells_both_numbers() -> None:
    """Clients shorten by them."""
    error = told(400, "x", "exceed_context_size_error", n_ctx=8, n_prompt_tokens=9)

    assert (error.code, error.extra) == ("context_length_exceeded", {"max": 8, "prompt_len": 9})


def test_a_failure_of_the_engine_is_not_shown() -> None:
    """It is in the log."""
    error = told(500, "Compute error at /secret/path")

    assert isinstance(error, UpstreamMalformed)
    assert "secret" not in error.message


@given(st.sampled_from([400, 404, 500, 501]), st.text(max_size=60) | st.none())
def test_any_refusal_is_one_of_ours(status: int, message: Any) -> None:
    """Also a body that is no refusal at all."""
    assert isinstance(refusal(status, {"error": {"message": message}}), ApiError)
    assert isinstance(refusal(status, message), ApiError)
    assert isinstance(refusal(400, {"error": []}), InvalidRequest)
