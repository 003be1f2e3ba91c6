"""A chat's body, made plain: what every engine needs done to it before it can be rendered.

1. A message without `content` has an empty one, and fields that are null are as good as absent.
2. A part of kind `refusal` is text.
3. A call in the history is a function's unless it says otherwise, and its arguments are JSON:
   where a model's answer was cut inside them, the text stands under `invalid_json`.
4. A `tool_choice` that names a function leaves the model that one and no other, and must be met;
   `allowed_tools` leaves it those.
5. A `tool_choice` that must be met is refused where the model's template knows no tools.
6. A stop string that is empty does not count.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from orjson import JSONDecodeError, dumps, loads

from cortex_core.errors import InvalidRequest

SYSTEM_ROLES = frozenset({"system", "developer"})
_CHOICES = frozenset({"none", "auto", "required"})


def plain_messages(messages: Any) -> list[dict[str, Any]]:
    """Return a chat's messages by the rules 1 to 3. Raises InvalidRequest."""
    return [_message(one) for one in _messages(messages)]


def choose_tools(body: dict[str, Any], *, knows_tools: bool) -> None:
    """Put `tool_choice` into one of three words, and leave the tools that it leaves.

    Raises InvalidRequest for a choice that makes no sense, or that the model cannot meet.
    """
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        names, choice = _named(choice)
        tools = [tool for tool in tools_of(body) if tool_name(tool) in names]
        if missing := sorted(names - {tool_name(tool) for tool in tools}):
            raise InvalidRequest(
                f"'tool_choice' names {missing[0]!r}, which is not among the tools",
                param="tool_choice",
            )
        body |= {"tools": tools, "tool_choice": choice}
    if choice is not None and not (isinstance(choice, str) and choice in _CHOICES):
        raise InvalidRequest(
            "'tool_choice' must be 'none', 'auto', 'required' or name a function",
            param="tool_choice",
        )
    if choice != "required":
        return
    if not tools_of(body):
        raise InvalidRequest(
            "'tool_choice' asks for a call, but there are no 'tools'", param="tool_choice"
        )
    if not knows_tools:
        raise InvalidRequest(
            "this model's chat template knows no tools, so a call cannot be required of it; "
            "choose a model that calls tools",
            code="tools_unsupported",
            param="tool_choice",
        )


def gather_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Return plain messages with the system's as one in front, None when they are so.

    Some templates refuse a second one, or one that comes later.
    """
    system = [one for one in messages if one["role"] in SYSTEM_ROLES]
    if not system or (len(system) == 1 and messages[0] is system[0]):
        return None
    text = "\n\n".join(filter(None, (text_of(one.get("content")) for one in system)))
    rest = [one for one in messages if one["role"] not in SYSTEM_ROLES]
    return [{"role": "system", "content": text}, *rest]


def stop_strings(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the stop strings that a body asks for. Raises InvalidRequest."""
    stop = body.get("stop")
    strings = [] if stop is None else [stop] if isinstance(stop, str) else stop
    if not isinstance(strings, list) or not all(isinstance(one, str) for one in strings):
        raise InvalidRequest("'stop' must be a string or a list of strings", param="stop")
    return tuple(one for one in strings if one)


def check_format(wanted: Any) -> None:
    """Check a `response_format` as far as every engine needs it. Raises InvalidRequest."""
    if wanted is None:
        return
    form = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = form.get("schema") if isinstance(form, dict) else form
    if not isinstance(wanted, dict) or not isinstance(schema, dict | bool | None):
        raise InvalidRequest(
            "'response_format' must be an object, and so must the schema in it",
            param="response_format",
        )


def tools_of(body: Mapping[str, Any]) -> list[Any]:
    """Return the tools that a body offers, whatever they are."""
    tools = body.get("tools")
    return tools if isinstance(tools, list) else []


def tool_name(tool: Any) -> str | None:
    """Return the name of a tool's function, or of what a choice names."""
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def text_of(content: Any) -> str:
    """Return the text of a content, its parts a line each."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _messages(messages: Any) -> Iterable[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("'messages' must be a list with a message in it", param="messages")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest(
                "a message must be an object with a 'role'", param=f"messages.{number}"
            )
        yield message


def _message(message: dict[str, Any]) -> dict[str, Any]:
    out = {key: value for key, value in message.items() if value is not None or key == "content"}
    if "content" not in out and not out.get("tool_calls"):
        out["content"] = ""
    if isinstance(parts := out.get("content"), list):
        out["content"] = [_part(part) for part in parts]
    if isinstance(calls := out.get("tool_calls"), list):
        out["tool_calls"] = [_call(call) for call in calls]
    return out


def _part(part: Any) -> Any:
    if isinstance(part, dict) and part.get("type") == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    return part


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    arguments = function.get("arguments")
    if arguments is None or isinstance(arguments, str):
        function = {**function, "arguments": _json_text(arguments or "{}")}
    return {"type": "function", **call, "function": function}


def _json_text(text: str) -> str:
    try:
        loads(text)
    except JSONDecodeError:
        return dumps({"invalid_json": text}).decode()
    return text


def _named(choice: dict[str, Any]) -> tuple[set[str], Any]:
    """Return the functions that a `tool_choice` object leaves, and whether one must be called."""
    allowed = choice.get("allowed_tools")
    if choice.get("type") == "allowed_tools" and isinstance(allowed, dict):
        tools = allowed.get("tools")
        names = {tool_name(one) for one in tools} if isinstance(tools, list) else set()
        return {name for name in names if name is not None}, allowed.get("mode")
    if (name := tool_name(choice)) is None:
        raise InvalidRequest("'tool_choice' names no function", param="tool_choice")
    return {name}, "required"
