"""Failures in each dialect's words."""

from typing import Any

import pytest

from cortex_dialects import Envelope, Failure, render


def anthropic(**more: Any) -> dict[str, Any]:
    """Return the error object of an Anthropic body."""
    made = Failure(**{"status": 400, "type": "invalid_request_error", "message": "no", **more})
    body = render(made, Envelope.ANTHROPIC, "req-1")
    assert (body["type"], body["request_id"]) == ("error", "req-1")
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_a_status_has_anthropics_word(status: int, kind: str) -> None:
    """Their SDKs and agents act on it."""
    assert anthropic(status=status)["type"] == kind


def test_a_prompt_too_long_is_told_in_the_sentence_that_agents_compact_on() -> None:
    """With the numbers, and without them where the node told none."""
    message = "This model's maximum context length is 512 tokens."
    code = "context_length_exceeded"
    numbers = {"max": 512, "prompt_len": 600}

    known = anthropic(code=code, message=message, extra=numbers)
    assert known["message"] == "prompt is too long: 600 tokens > 512 maximum"
    assert anthropic(code=code, message=message)["message"].startswith("prompt is too long:")
    assert anthropic(code=code, message="too long")["message"] == "too long"


def test_a_thread_that_is_not_kept_is_told_as_the_sdk_reads_it() -> None:
    """By a code in the details: then it sends the whole conversation."""
    told = anthropic(status=404, code="thread_not_found")

    assert told["type"] == "not_found_error"
    assert told["details"] == {"error_code": "thread_not_found"}
    assert "details" not in anthropic(status=404, code="model_not_found")


def test_openais_body_carries_code_param_and_diagnostics() -> None:
    """All beside the message."""
    made = Failure(status=400, type="t", message="m", code="c", param="p", extra={"max": 1})

    assert render(made, Envelope.OPENAI, "r") == {
        "error": {"message": "m", "type": "t", "code": "c", "param": "p", "max": 1}
    }


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        ({"message": "no", "type": "invalid_request_error"}, 400, "no"),
        ({"message": "no", "type": "rate_limit_error", "code": 7}, 429, "no"),
        ({}, 500, "the engine failed"),
        ({"message": {"a": 1}, "type": 3}, 500, "{'a': 1}"),
    ],
)
def test_an_error_frame_is_read_leniently(error: dict[str, Any], status: int, message: str) -> None:
    """Nodes differ in what they leave out."""
    made = Failure.parse(error)

    assert (made.status, made.message) == (status, message)
