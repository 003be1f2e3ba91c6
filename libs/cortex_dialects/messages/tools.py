"""Tools of a Messages request as functions of a chat completion request, and back."""

import re
from typing import Any, Final

from cortex_dialects.bad_body import BadBody
from cortex_dialects.messages.reading import as_list, as_name, as_object

#: Tools without a schema, which Anthropic's servers run or its models have learned.
_SERVER_TOOL: Final = re.compile(
    r"(web_search|web_fetch|code_execution|computer|mcp_toolset|bash|text_editor|memory)(_\d+)?"
)
#: Searches among tools whose schemas are sent late. All are sent at once here.
_TOOL_SEARCH: Final = re.compile(r"tool_search_tool_.*")


def chat_tools(value: Any) -> list[dict[str, Any]]:
    """Return the functions that the model may call. Raises BadBody for what nobody here can run."""
    if value is None:
        return []
    functions = []
    for number, tool in enumerate(as_list(value, "tools")):
        where = f"tools.{number}"
        kind = as_object(tool, where).get("type") or "custom"
        if kind == "function" and isinstance(tool.get("function"), dict):
            functions.append({"type": "function", "function": dict(tool["function"])})
        elif isinstance(kind, str) and _TOOL_SEARCH.fullmatch(kind):
            continue
        elif kind == "custom" or (isinstance(kind, str) and not _SERVER_TOOL.fullmatch(kind)):
            functions.append(_function(tool, where))
        else:
            raise BadBody(
                f"tools of type {kind!r} are known to Anthropic's own models only; offer a tool "
                "with an input_schema instead",
                code="unsupported_tool",
                param=where,
            )
    return functions


def _function(tool: dict[str, Any], where: str) -> dict[str, Any]:
    function: dict[str, Any] = {"name": as_name(tool.get("name"), f"{where}.name")}
    if isinstance(tool.get("description"), str):
        function["description"] = tool["description"]
    schema = tool.get("input_schema")
    function["parameters"] = (
        {"type": "object", "properties": {}}
        if schema is None
        else as_object(schema, f"{where}.input_schema")
    )
    if isinstance(tool.get("strict"), bool):
        function["strict"] = tool["strict"]
    return {"type": "function", "function": function}


def chat_tool_choice(value: Any) -> dict[str, Any]:
    """Return `tool_choice` and `parallel_tool_calls`, as far as they are given. Raises BadBody."""
    if value is None:
        return {}
    choice = as_object(value, "tool_choice")
    fields: dict[str, Any] = {}
    match choice.get("type"):
        case "auto" | "none" as kind:
            fields["tool_choice"] = kind
        case "any":
            fields["tool_choice"] = "required"
        case "tool":
            name = as_name(choice.get("name"), "tool_choice.name")
            fields["tool_choice"] = {"type": "function", "function": {"name": name}}
        case _:
            raise BadBody(
                "tool_choice.type must be 'auto', 'any', 'tool' or 'none'", param="tool_choice.type"
            )
    if isinstance(alone := choice.get("disable_parallel_tool_use"), bool):
        fields["parallel_tool_calls"] = not alone
    return fields


def message_tools(functions: list[Any]) -> list[dict[str, Any]]:
    """Return the functions of a chat completion request as tools. Raises BadBody."""
    tools = []
    for number, one in enumerate(functions):
        where = f"tools.{number}"
        function = as_object(as_object(one, where).get("function"), f"{where}.function")
        tool: dict[str, Any] = {"name": as_name(function.get("name"), f"{where}.function.name")}
        if isinstance(function.get("description"), str):
            tool["description"] = function["description"]
        parameters = function.get("parameters")
        tool["input_schema"] = (
            {"type": "object", "properties": {}}
            if parameters is None
            else as_object(parameters, f"{where}.function.parameters")
        )
        if isinstance(function.get("strict"), bool):
            tool["strict"] = function["strict"]
        tools.append(tool)
    return tools


def message_tool_choice(choice: Any, parallel: Any) -> dict[str, Any] | None:
    """Return `tool_choice` of a Messages request, None where nothing is said. Raises BadBody."""
    match choice:
        case None:
            found: dict[str, Any] | None = None
        case "auto" | "none":
            found = {"type": choice}
        case "required":
            found = {"type": "any"}
        case {"type": "function", "function": {"name": str(name)}}:
            found = {"type": "tool", "name": name}
        case _:
            raise BadBody(
                "tool_choice must be 'auto', 'none', 'required' or a function", param="tool_choice"
            )
    if isinstance(parallel, bool):
        found = found or {"type": "auto"}
        if found["type"] != "none":
            found["disable_parallel_tool_use"] = not parallel
    return found
