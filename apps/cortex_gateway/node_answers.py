"""What a node's refusal means for the client, and whether another replica may do better."""

from collections.abc import Mapping
from typing import Any

from orjson import JSONDecodeError, loads

from cortex_core.errors import (
    ApiError,
    InvalidRequest,
    ModelNotFound,
    QueueFull,
    RequestTooLarge,
    Unavailable,
    UpstreamMalformed,
    UpstreamTimeout,
)

MAX_ERROR_BYTES = 64 * 1024
_LOGGED_CHARS = 600
#: What one node says of itself, not of the request.
_ELSEWHERE = frozenset({401, 403, 429, 502, 503})


class NodeRefused(Exception):
    """A node could not be asked, or said no; `error` is what the client may know of it.

    `fields` are for the operator: the node's status and the beginning of what it said.
    """

    def __init__(
        self,
        error: ApiError,
        *,
        replaceable: bool,
        detail: str = "",
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or f"{error.status} {error.code}: {error.message}")
        self.error = error
        self.replaceable = replaceable
        self.fields = dict(fields or {})


def node_refusal(status: int, headers: Mapping[str, str], raw: bytes) -> NodeRefused:
    """Return a node's error answer as what it means, and what it said."""
    error = refused_by_node(status, headers, raw)
    fields = {"node_status": status, **said_by_node(raw)}
    return NodeRefused(error, replaceable=is_replaceable(status, error), fields=fields)


def said_by_node(raw: bytes) -> dict[str, Any]:
    """Return the beginning of what a node said, for the operator's log."""
    return {"node_body": raw[:_LOGGED_CHARS].decode("utf-8", "replace")}


def refused_by_node(status: int, headers: Mapping[str, str], raw: bytes) -> ApiError:
    """Return a node's error answer as ours.

    Refusals of the request itself keep their words, because clients act on them; what went wrong
    inside the node is told in general terms.
    """
    try:
        body = loads(raw)
    except JSONDecodeError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    detail: dict[str, Any] = error if isinstance(error, dict) else {}
    retry_after = _seconds(headers.get("retry-after"))
    message = str(detail.get("message") or "the node refused the request")
    code = detail.get("code") if isinstance(detail.get("code"), str) else None
    param = detail.get("param") if isinstance(detail.get("param"), str) else None
    extra = {k: v for k, v in detail.items() if k not in {"message", "type", "code", "param"}}
    match status:
        case 401 | 403:
            return Unavailable("the node does not obey this gateway")
        case 404:
            return ModelNotFound(message, code=code, param=param)
        case 413:
            return RequestTooLarge(message, code=code, extra=extra)
        case 429:
            return QueueFull(message, code=code, retry_after_secs=retry_after)
        case 503 if detail.get("type") == "rate_limit_error":
            return QueueFull(message, code=code, retry_after_secs=retry_after)
        case 503:
            return Unavailable(
                "the node cannot serve this model right now",
                code=code,
                retry_after_secs=retry_after or 2,
            )
        case 504:
            return UpstreamTimeout("the node's engine fell silent")
        case _ if 400 <= status < 500:  # noqa: PLR2004
            return InvalidRequest(message, code=code, param=param, extra=extra)
        case _:
            return UpstreamMalformed("the node failed on this request")


def is_replaceable(status: int, error: ApiError) -> bool:
    """Tell whether another replica may serve what this one refused.

    A 404 of a model we believed loaded means that our picture is old, not that the model is gone.
    """
    return status in _ELSEWHERE or (status == 404 and error.code == "model_not_found")  # noqa: PLR2004


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdigit() else None
