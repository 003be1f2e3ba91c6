"""What our own children refuse: their errors are ours, and come over as they were raised."""

from typing import Any, Final

from cortex_core.errors import (
    ApiError,
    InternalError,
    InvalidRequest,
    ModelNotFound,
    PreflightFailed,
    QueueFull,
    RequestTooLarge,
    ShuttingDown,
    Unavailable,
    UpstreamMalformed,
)
from cortex_neuron.engine_process import EngineFailed

#: What an engine says first when it is the model's files that it refuses; then kind and message.
PREFLIGHT: Final = "preflight "

_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    400: InvalidRequest,
    404: ModelNotFound,
    413: RequestTooLarge,
    500: InternalError,
    503: Unavailable,
}
_BY_CODE: Final[dict[str, type[ApiError]]] = {
    "rate_limit_exceeded": QueueFull,
    "shutting_down": ShuttingDown,
}
_NAMED: Final = frozenset({"message", "type", "code", "param"})


def refusal(status: int, body: Any) -> ApiError:
    """Return the error that an engine's status and envelope stand for."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return UpstreamMalformed("the engine failed on this request")
    code, param = error.get("code"), error.get("param")
    kind = _BY_CODE.get(str(code)) or _BY_STATUS.get(_status(status, error), UpstreamMalformed)
    return kind(
        error["message"],
        code=code if isinstance(code, str) else None,
        param=param if isinstance(param, str) else None,
        extra={key: value for key, value in error.items() if key not in _NAMED},
    )


def explain(error: EngineFailed) -> ApiError:
    """Return what is known about why the engine refused: some refusals are about the files."""
    if error.said.startswith(PREFLIGHT):
        kind, _, message = error.said.removeprefix(PREFLIGHT).partition(": ")
        return PreflightFailed(kind, message)
    return error


def _status(status: int, error: dict[str, Any]) -> int:
    """Return the status that an error has; one that came inside a stream has none of its own."""
    if status == 400 and error.get("type") == "api_error":  # noqa: PLR2004
        return 500 if error.get("code") == "internal_error" else 503
    return status
