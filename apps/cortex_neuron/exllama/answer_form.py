"""The form that a request wants its answers in: `response_format`, or one of vLLM's `guided_…`."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import llguidance
from orjson import JSONDecodeError, JSONEncodeError, dumps, loads

from cortex_core.errors import InvalidRequest

#: A form as a request writes it, in bytes.
LONGEST: Final = 256 * 1024
_MOST_CHOICES: Final = 1000
_JSON_OBJECT: Final = {"type": "object"}
# Blank text between JSON's parts has an end: models have been seen to write nothing else any more.
_BLANK: Final = r"[ \t\r\n]{1,64}"


class AnswerForm(NamedTuple):
    """A form: one grammar of llguidance's, and the field that asked for it."""

    param: str
    grammar: dict[str, Any]


def read_form(body: Mapping[str, Any]) -> AnswerForm | None:
    """Return the form that `body` wants, None where it wants none. Raises InvalidRequest."""
    forms = [form for read in _READERS if (form := read(body)) is not None]
    if len(forms) > 1:
        raise InvalidRequest(
            f"{forms[0].param!r} and {forms[1].param!r} both say the form of the answer",
            param=forms[1].param,
        )
    if not forms:
        return None
    try:
        size = len(dumps(forms[0].grammar))
    except JSONEncodeError as error:
        raise _wrong(forms[0].param, "be nested less deeply") from error
    if size > LONGEST:
        raise _wrong(forms[0].param, f"be shorter than {LONGEST} bytes")
    return forms[0]


def json_grammar(schema: dict[str, Any] | bool) -> dict[str, Any]:  # noqa: FBT001  # a schema may be one
    """Return a JSON schema as a grammar of llguidance's."""
    if isinstance(schema, bool):
        return {"json_schema": schema}
    return {"json_schema": {"x-guidance": {"whitespace_pattern": _BLANK}, **schema}}


def _response_format(body: Mapping[str, Any]) -> AnswerForm | None:
    param = "response_format"
    wanted = body.get(param)
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return AnswerForm(param, json_grammar(_JSON_OBJECT))
    if kind != "json_schema":
        raise _wrong(param, "have the type 'text', 'json_object' or 'json_schema'")
    form = wanted.get("json_schema")
    schema = form.get("schema") if isinstance(form, dict) else None
    if not isinstance(schema, dict | bool):
        raise _wrong(param, "have a JSON schema in 'json_schema.schema'")
    return AnswerForm(param, json_grammar(schema))


def _guided_json(body: Mapping[str, Any]) -> AnswerForm | None:
    param = "guided_json"
    schema = body.get(param)
    if isinstance(schema, str):
        try:
            schema = loads(schema)
        except JSONDecodeError as error:
            raise _wrong(param, "be a JSON schema") from error
    elif schema is None:
        return None
    if not isinstance(schema, dict | bool):
        raise _wrong(param, "be a JSON schema")
    return AnswerForm(param, json_grammar(schema))


def _guided_regex(body: Mapping[str, Any]) -> AnswerForm | None:
    param = "guided_regex"
    if (expression := _text(body, param)) is None:
        return None
    # As in Python: a digit is any script's.
    return AnswerForm(
        param, {"lark_grammar": f"start: /{llguidance.regex_to_lark(expression, '')}/"}
    )


def _guided_choice(body: Mapping[str, Any]) -> AnswerForm | None:
    param = "guided_choice"
    choices = body.get(param)
    if choices is None:
        return None
    if (
        not isinstance(choices, list)
        or not 0 < len(choices) <= _MOST_CHOICES
        or not all(isinstance(one, str) and one for one in choices)
    ):
        raise _wrong(param, f"be a list of at most {_MOST_CHOICES} texts")
    try:
        texts = " | ".join(dumps(one).decode() for one in choices)
    except JSONEncodeError as error:
        raise _wrong(param, "be text") from error
    return AnswerForm(param, {"lark_grammar": f"start: {texts}"})


def _guided_grammar(body: Mapping[str, Any]) -> AnswerForm | None:
    param = "guided_grammar"
    text = _text(body, param)
    return None if text is None else AnswerForm(param, {"lark_grammar": text})


_READERS: Final = (_response_format, _guided_json, _guided_regex, _guided_choice, _guided_grammar)


def _text(body: Mapping[str, Any], param: str) -> str | None:
    value = body.get(param)
    if value is not None and (not isinstance(value, str) or not value):
        raise _wrong(param, "be text")
    return value


def _wrong(param: str, must: str) -> InvalidRequest:
    return InvalidRequest(f"{param!r} must {must}", param=param)
