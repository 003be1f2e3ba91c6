"""The front of a request: the few fields that routing needs, checked, the rest left alone."""

import re
from typing import Any, NamedTuple

from orjson import JSONDecodeError, dumps, loads

from cortex_dialects.bad_body import BadBody
from cortex_dialects.encoding import encode
from cortex_dialects.keep_alive import parse_keep_alive

#: With no more brackets than this a body can be written again; deeper ones can only be read.
_SURELY_WRITABLE = 200
#: What shows where a value stands in JSON: texts, and brackets outside of them.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]]')
_KEY = b'"model"'
_IS_KEY = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*("?)')


class Front(NamedTuple):
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
    if raw.count(b"[") + raw.count(b"{") > _SURELY_WRITABLE:
        encode([[[[body]]]])  # translation may put parts a little deeper
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
    """Return the body with `fields` replaced, as JSON bytes. Raises BadBody."""
    return encode({**front.body, **fields})


def with_model(raw: bytes, front: Front, model: str) -> bytes:
    """Return the body with another model's name in it and every other byte as it was."""
    place = _place_of_model(raw)
    if place is None:
        return with_fields(front, model=model)
    return raw[: place[0]] + dumps(model) + raw[place[1] :]


def _place_of_model(raw: bytes) -> tuple[int, int] | None:
    """Return where the outermost object of valid JSON names the model, if it does so once."""
    if raw.count(_KEY) == 1 and b"\\u00" not in raw:
        # Nothing else is called so, in whatever letters, and quotes inside of texts are escaped.
        key = _IS_KEY.match(raw, raw.index(_KEY) + len(_KEY))
        value = _TOKEN.match(raw, key.end(1) - 1) if key is not None and key[1] else None
        return value.span() if value is not None else None
    found: list[tuple[int, int]] = []
    depth = keys = 0
    named = False
    for token in _TOKEN.finditer(raw):
        text = token[0]
        if text in b"{[":
            depth += 1
        elif text in b"}]":
            depth -= 1
        elif named:
            found.append(token.span())
            named = False
        elif depth == 1 and text == _KEY:
            if (key := _IS_KEY.match(raw, token.end())) is not None:
                keys += 1
                named = bool(key[1])
        elif depth == 1 and b"\\" in text and loads(text) == "model":
            return None  # The same name in other letters.
    return found[0] if keys == 1 and found else None
