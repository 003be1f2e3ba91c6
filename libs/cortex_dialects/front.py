"""The front of a request: the few fields that routing needs, checked, the rest left alone."""

from dataclasses import dataclass
from typing import Any

from orjson import JSONDecodeError, dumps, loads

from cortex_dialects.bad_body import BadBody
from cortex_dialects.keep_alive import parse_keep_alive


@dataclass(frozen=True, slots=True, kw_only=True)
class Front:
    """A parsed body and what matters of it. `wants_usage`: the client asked for the usage chunk.

    `keep_alive_secs` is how long the model is to stay when it is idle; None: as it was.
    """

    body: dict[str, Any]
    model: str
    stream: bool
    wants_usage: bool
    keep_alive_secs: float | None = None


def read_front(raw: bytes) -> Front:
    """Return the front of a JSON request body. Raises BadBody."""
    try:
        body = loads(raw)
    except JSONDecodeError as error:
        raise BadBody(f"the body is not valid JSON: {error}", code="malformed_json") from None
    if not isinstance(body, dict):
        raise BadBody("the body must be a JSON object", code="invalid_request_body")
    model = body.get("model")
    if model is None:
        raise BadBody(
            "the field 'model' is missing; GET /v1/models lists what can be asked for",
            code="missing_model_field",
            param="model",
        )
    if not isinstance(model, str) or not model.strip():
        raise BadBody(
            "'model' must be a non-empty string", code="invalid_request_body", param="model"
        )
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise BadBody("'stream' must be true or false", code="invalid_request_body", param="stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise BadBody(
            "'stream_options' must be an object",
            code="invalid_request_body",
            param="stream_options",
        )
    return Front(
        body=body,
        model=model,
        stream=bool(stream),
        wants_usage=bool(stream) and bool((options or {}).get("include_usage")),
        keep_alive_secs=_keep_alive_secs(body),
    )


def _keep_alive_secs(body: dict[str, Any]) -> float | None:
    if body.get("keep_alive") is None:
        return None
    try:
        return parse_keep_alive(body["keep_alive"])
    except ValueError as error:
        raise BadBody(str(error), code="invalid_request_body", param="keep_alive") from None


def with_fields(front: Front, **fields: Any) -> bytes:
    """Return the body with `fields` replaced, as JSON bytes."""
    return dumps({**front.body, **fields})
