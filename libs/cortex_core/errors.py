"""Why we say no: every failure either daemon tells a client, as a type.

ApiError                        abstract: status, type, code, and whether trying again can help
├── InvalidRequest       400    the body or a parameter is wrong; `code` says which way
├── InvalidApiKey        401    no key was sent, or none that is good here
├── NotPermitted         403    the key is good, and not for this
├── ModelNotFound        404    nobody serves it and nobody could
├── ModelInfeasible      404    it is known, and no device of the fleet can ever hold it
├── ThreadNotFound       404    the request goes on with a conversation, and none are kept here
├── RequestNotFound      404    no such request is in flight
├── RouteNotFound        404
├── MethodNotAllowed     405
├── InsufficientVram     409    neuron: a load does not fit; nothing was touched
├── ModelBusy            409    neuron: the model asked to go still has requests in flight
├── RequestTooLarge      413
├── PreflightFailed      422    neuron: the source can never be loaded; `kind` says why
├── RequestCancelled     499    an operator ended it
├── RateLimited          429    the key has used up one of its limits; `limit` says which
├── InternalError        500    our own bug
├── UpstreamMalformed    502    the node or the engine answered nonsense
├── UpstreamUnreachable  503    the node or the engine went away before it answered
├── Unavailable          503    it could work, not now
│   └── EngineStartFailed 503   neuron: the engine did not come up; its log has the detail
├── QueueFull            503    the replica's queue is full, or the wait in it was too long
├── ShuttingDown         503    this daemon is draining
└── UpstreamTimeout      504    the node or the engine stayed silent for too long

`envelope` is the one place where an error becomes a body, whatever dialect its reader speaks. What
a client may not know (addresses, engine output, stack traces) belongs in the log line of whoever
raised, never in `message`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from cortex_dialects import BadBody, Envelope, Failure, render
from cortex_dialects.failure import THREAD_NOT_FOUND


class ApiError(Exception):
    """A failure with its own answer: HTTP status, OpenAI error type and code.

    `retry_after_secs` is set if and only if trying again can help. `extra` holds machine-readable
    diagnostics that are safe to show and land beside `message` in the envelope.
    """

    status: ClassVar[int]
    type: ClassVar[str]
    default_code: ClassVar[str | None] = None
    default_retry_after_secs: ClassVar[float | None] = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_secs: float | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if not hasattr(type(self), "status"):
            raise TypeError(f"{type(self).__name__} is abstract: raise one of its subclasses")
        super().__init__(message)
        self.message = message
        self.code = code if code is not None else self.default_code
        self.param = param
        self.retry_after_secs = (
            retry_after_secs if retry_after_secs is not None else self.default_retry_after_secs
        )
        self.extra = dict(extra or {})


class InvalidRequest(ApiError):
    """The request itself is wrong; sending it again unchanged cannot help."""

    status, type = 400, "invalid_request_error"
    default_code = "invalid_request_body"


class InvalidApiKey(ApiError):
    """Nobody is let in without a key, and this is none, or no longer one."""

    status, type = 401, "invalid_request_error"
    default_code = "invalid_api_key"


class NotPermitted(ApiError):
    """The key is known and does not cover what was asked for."""

    status, type = 403, "invalid_request_error"
    default_code = "not_permitted"


class ModelNotFound(ApiError):
    """No node serves the model and none could."""

    status, type = 404, "invalid_request_error"
    default_code = "model_not_found"


class ModelInfeasible(ApiError):
    """The model is known, but no device of the fleet could ever hold it."""

    status, type = 404, "invalid_request_error"
    default_code = "model_infeasible"


class ThreadNotFound(ApiError):
    """The request goes on with a conversation that would have to be kept here."""

    status, type = 404, "invalid_request_error"
    default_code = THREAD_NOT_FOUND


class RequestNotFound(ApiError):
    """No request of that name is in flight."""

    status, type = 404, "invalid_request_error"
    default_code = "request_not_found"


class RouteNotFound(ApiError):
    """No such path."""

    status, type = 404, "invalid_request_error"
    default_code = "route_not_found"


class MethodNotAllowed(ApiError):
    """The path exists, the method does not."""

    status, type = 405, "invalid_request_error"
    default_code = "method_not_allowed"


class InsufficientVram(ApiError):
    """A load does not fit on the node as it is now; `extra` carries the arithmetic."""

    status, type = 409, "api_error"
    default_code = "insufficient_vram"


class ModelBusy(ApiError):
    """A model named as a victim has requests in flight."""

    status, type = 409, "api_error"
    default_code = "model_busy"
    default_retry_after_secs = 1


class RequestTooLarge(ApiError):
    """The body exceeds `request_max_mb`."""

    status, type = 413, "invalid_request_error"
    default_code = "request_too_large"


class PreflightFailed(ApiError):
    """The model's source can never be loaded as asked.

    `kind` is one of `not_found`, `quant_not_found`, `unsupported_arch`, `unsupported_format`,
    `unsupported_quant`, `unsupported_rope`, `corrupt`, `bad_source`, `fetch_failed`, `no_space`.
    """

    status, type = 422, "invalid_request_error"

    def __init__(self, kind: str, message: str, *, extra: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, code=kind, extra={"kind": kind, **(extra or {})})
        self.kind = kind


class RequestCancelled(ApiError):
    """An operator ended the request. A status that clients do not answer by asking again."""

    status, type = 499, "api_error"
    default_code = "request_cancelled"


class RateLimited(ApiError):
    """The key's limit of requests, tokens or concurrency is reached; it passes."""

    status, type = 429, "rate_limit_error"
    default_code = "rate_limit_exceeded"
    default_retry_after_secs = 1
    #: Headers that say what is left.
    left: Mapping[str, str] = MappingProxyType({})


class InternalError(ApiError):
    """A bug of ours; the log line has the trace."""

    status, type = 500, "api_error"
    default_code = "internal_error"


class UpstreamMalformed(ApiError):
    """What came back from behind us was not what the contract says."""

    status, type = 502, "api_error"
    default_code = "upstream_malformed_response"


class UpstreamUnreachable(ApiError):
    """The node or engine was lost before it answered."""

    status, type = 503, "api_error"
    default_code = "upstream_unreachable"
    default_retry_after_secs = 2


class Unavailable(ApiError):
    """It can work later: the model is arriving or recovering, or every node for it is away."""

    status, type = 503, "api_error"
    default_code = "service_unavailable"
    default_retry_after_secs = 5


class EngineStartFailed(Unavailable):
    """The engine's process did not come up, though nothing is known to be wrong with the files."""

    default_code = "engine_start_failed"
    default_retry_after_secs = 15


class QueueFull(ApiError):
    """The replica accepts no more waiting requests, or one waited for too long."""

    status, type = 503, "rate_limit_error"
    default_code = "rate_limit_exceeded"
    default_retry_after_secs = 2


class ShuttingDown(ApiError):
    """This daemon is draining."""

    status, type = 503, "api_error"
    default_code = "shutting_down"
    default_retry_after_secs = 15


class UpstreamTimeout(ApiError):
    """The node or engine sent nothing for longer than the limit."""

    status, type = 504, "api_error"
    default_code = "upstream_timeout"


def failure(error: ApiError) -> Failure:
    """Return what a client may know of `error`, in no dialect yet."""
    return Failure(
        status=error.status,
        type=error.type,
        message=error.message,
        code=error.code,
        param=error.param,
        extra=error.extra,
    )


def envelope(
    error: ApiError, kind: Envelope = Envelope.OPENAI, request_id: str = ""
) -> dict[str, Any]:
    """Return the error body that the client's dialect has for `error`."""
    return render(failure(error), kind, request_id)


def refused_body(error: BadBody) -> ApiError:
    """Return a request that could not be read as the answer to it."""
    if error.code == THREAD_NOT_FOUND:
        return ThreadNotFound(error.message, param=error.param)
    return InvalidRequest(error.message, code=error.code, param=error.param)


def headers(error: ApiError) -> dict[str, str]:
    """Return the headers that belong to `error`: when to come back, in whole seconds, and how."""
    told = {} if error.status != InvalidApiKey.status else {"www-authenticate": "Bearer"}
    if error.retry_after_secs is not None:
        told["retry-after"] = str(max(1, round(error.retry_after_secs)))
    if isinstance(error, RateLimited):
        told |= error.left
    return told
