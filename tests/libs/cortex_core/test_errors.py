"""One tree, one envelope."""

import inspect

import pytest

from cortex_core import errors
from cortex_core.errors import (
    ApiError,
    InsufficientVram,
    PreflightFailed,
    QueueFull,
    envelope,
    headers,
)

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ApiError) and kind not in (ApiError, PreflightFailed)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_has_a_whole_envelope(kind: type[ApiError]) -> None:
    """Message, type, code and param are always there."""
    body = envelope(kind("what to do"))["error"]

    assert body["message"] == "what to do"
    assert body["type"]
    assert body["code"]
    assert body["param"] is None


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_only_passing_failures_ask_to_try_again(kind: type[ApiError]) -> None:
    """503 and 429 say when to come back; what is wrong for good never does."""
    told = "retry-after" in headers(kind("x"))

    assert told == (kind.status in {429, 503} or kind is errors.ModelBusy)


def test_the_root_cannot_be_raised() -> None:
    """An error without a status is a mistake of ours."""
    with pytest.raises(TypeError, match="abstract"):
        ApiError("x")


def test_diagnostics_stand_beside_the_message() -> None:
    """Machine-readable numbers land inside `error`."""
    body = envelope(InsufficientVram("no", extra={"needed_mb": 7}))

    assert body["error"]["needed_mb"] == 7


def test_a_preflight_failure_is_its_kind() -> None:
    """The kind is the code."""
    body = envelope(PreflightFailed("corrupt", "truncated"))["error"]

    assert (body["code"], body["kind"]) == ("corrupt", "corrupt")


@pytest.mark.parametrize(("secs", "header"), [(0.2, "1"), (1.6, "2"), (30, "30")])
def test_retry_after_is_whole_seconds(secs: float, header: str) -> None:
    """At least one: zero would mean at once, and that is what failed."""
    assert headers(QueueFull("x", retry_after_secs=secs)) == {"retry-after": header}
