"""A Responses request, as a chat completion request."""

from typing import Any, Final

from orjson import dumps

from cortex_dialects.bad_body import BadBody
from cortex_dialects.responses.fields import (
    count_of,
    flag_of,
    name_of,
    number_of,
    object_of,
    text_of,
)
from cortex_dialects.responses.input_items import read_messages
from cortex_dialects.responses.tool_choice import tool_fields
from cortex_dialects.responses.tools import read_tools

#: What Responses itself defines: translated below, or of no meaning to a node. Everything else
#: (sampling that OpenAI does not have, `keep_alive`) goes on to the node as it is.
_OWN: Final = frozenset(
    {
        "access_programs",
        "background",
        "background_options",
        "client_metadata",
        "context_management",
        "conversation",
        "image",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "moderation",
        "parallel_tool_calls",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)
#: Efforts that ask for an answer without thoughts.
_THOUGHTLESS: Final = ("none", "minimal")


def to_chat(body: dict[str, Any]) -> dict[str, Any]:
    """Return a Responses request body as a chat completion's. Raises BadBody."""
    _refuse_stored(body)
    tools = read_tools(body)
    chat = {key: value for key, value in body.items() if key not in _OWN}
    for key in ("model", "stream"):
        if key in body:
            chat[key] = body[key]
    chat["messages"] = read_messages(body, tools)
    if flag_of(body, "stream"):
        chat["stream_options"] = {"include_usage": True}
    chat |= tool_fields(body, tools)
    chat |= _sampling(body)
    chat |= _response_format(body)
    chat |= _reasoning(body)
    _check_depth(chat)
    return chat


def _refuse_stored(body: dict[str, Any]) -> None:
    """Refuse what needs a memory of earlier answers: there is none here."""
    for key in ("previous_response_id", "conversation"):
        if body.get(key) is not None:
            raise BadBody(
                f"'{key}' is not supported: answers are not kept; send the whole conversation"
                " in 'input'",
                code=f"{key}_unsupported",
                param=key,
            )
    if body.get("prompt") is not None:
        raise BadBody(
            "'prompt' is not supported: no prompts are kept; send its text in 'instructions'",
            code="prompt_unsupported",
            param="prompt",
        )
    if flag_of(body, "background"):
        raise BadBody(
            "'background' is not supported: answers are not kept; use 'stream'",
            code="background_unsupported",
            param="background",
        )


def _sampling(body: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "max_tokens": count_of(body, "max_output_tokens"),
        "temperature": number_of(body, "temperature"),
        "top_p": number_of(body, "top_p"),
    }
    include = body.get("include")
    if isinstance(include, list) and "message.output_text.logprobs" in include:
        fields |= {"logprobs": True, "top_logprobs": count_of(body, "top_logprobs")}
    return {key: value for key, value in fields.items() if value is not None}


def _response_format(body: dict[str, Any]) -> dict[str, Any]:
    form = object_of(object_of(body, "text") or {}, "format", "text.")
    if form is None:
        return {}
    match form.get("type"):
        case "text":
            return {}
        case "json_object":
            return {"response_format": {"type": "json_object"}}
        case "json_schema":
            schema: dict[str, Any] = {
                "name": name_of(form, "name", "text.format."),
                "description": text_of(form, "description", "text.format."),
                "schema": object_of(form, "schema", "text.format."),
                "strict": flag_of(form, "strict", "text.format."),
            }
            known = {key: value for key, value in schema.items() if value is not None}
            if "schema" not in known:
                raise BadBody("'text.format.schema' is missing", param="text.format.schema")
            return {"response_format": {"type": "json_schema", "json_schema": known}}
        case _:
            raise BadBody(
                "'text.format.type' must be 'text', 'json_object' or 'json_schema'",
                param="text.format.type",
            )


def _reasoning(body: dict[str, Any]) -> dict[str, Any]:
    effort = text_of(object_of(body, "reasoning") or {}, "effort", "reasoning.")
    if effort is None:
        return {}
    # Templates know thinking or not; engines that know more read the effort.
    derived = {"enable_thinking": effort not in _THOUGHTLESS}
    given = object_of(body, "chat_template_kwargs") or {}
    return {"reasoning_effort": effort, "chat_template_kwargs": {**derived, **given}}


def _check_depth(chat: dict[str, Any]) -> None:
    """Refuse what cannot be written as JSON again, in an answer's slightly deeper frame too."""
    try:
        dumps([[[chat]]])
    except TypeError as error:
        raise BadBody(f"the body cannot be passed on: {error}") from None
