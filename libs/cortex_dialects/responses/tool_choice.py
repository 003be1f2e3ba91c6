"""Which tools the model may call, and which it must."""

from collections.abc import Mapping
from typing import Any

from cortex_dialects.bad_body import BadBody
from cortex_dialects.responses.fields import flag_of, name_of, objects_of, text_of
from cortex_dialects.responses.tools import DeclaredTool, ToolTable, refused_tool


def tool_fields(body: Mapping[str, Any], table: ToolTable) -> dict[str, Any]:
    """Return the chat request's fields about tools: none where the model has no tool.

    Raises BadBody where the model would have to call a tool that cannot be had here.
    """
    parallel = flag_of(body, "parallel_tool_calls")
    tools, choice = _chosen(body.get("tool_choice"), table)
    if not tools and choice == "required":
        raise _unsupported(table)
    if not tools:
        return {}
    fields: dict[str, Any] = {"tools": [tool.chat for tool in tools]}
    if choice is not None:
        fields["tool_choice"] = choice
    if parallel is not None:
        fields["parallel_tool_calls"] = parallel
    return fields


def unwrapped(choice: dict[str, Any]) -> dict[str, Any]:
    """Return a choice of one type, out of the object that chat completions would wrap it in."""
    kind = choice.get("type")
    inner = choice.get(kind) if isinstance(kind, str) else None
    return {"type": kind, **inner} if isinstance(inner, dict) else choice


def _chosen(choice: Any, table: ToolTable) -> tuple[list[DeclaredTool], Any]:
    if choice is None or choice in ("none", "auto", "required"):
        return table.declared, choice
    if not isinstance(choice, dict):
        raise BadBody(
            "'tool_choice' must be 'none', 'auto', 'required' or an object", param="tool_choice"
        )
    match choice.get("type"):
        case "function" | "custom":
            tool = _named(unwrapped(choice), table)
            return table.declared, {"type": "function", "function": {"name": tool.wire_name}}
        case "allowed_tools":
            return _allowed(unwrapped(choice), table)
        case kind:
            raise _unsupported(table, kind if isinstance(kind, str) else None)


def _named(choice: dict[str, Any], table: ToolTable) -> DeclaredTool:
    name = name_of(choice, "name", "tool_choice.")
    namespace = text_of(choice, "namespace", "tool_choice.")
    if (found := table.find(namespace, name)) is not None:
        return found
    # A choice may leave the namespace out.
    for tool in table.declared:
        if namespace is None and tool.name == name:
            return tool
    raise BadBody(f"'tool_choice' names '{name}', which is not in 'tools'", param="tool_choice")


def _allowed(choice: dict[str, Any], table: ToolTable) -> tuple[list[DeclaredTool], str]:
    mode = choice.get("mode")
    if mode not in ("auto", "required"):
        raise BadBody("'tool_choice.mode' must be 'auto' or 'required'", param="tool_choice.mode")
    allowed: set[str] = set()
    for entry in objects_of(choice, "tools", "tool_choice."):
        match entry.get("type"):
            case "function" | "custom":
                allowed.add(_named(unwrapped(entry), table).wire_name)
            case "namespace":
                name = name_of(entry, "name", "tool_choice.tools.")
                allowed |= {t.wire_name for t in table.declared if t.namespace == name}
    return [tool for tool in table.declared if tool.wire_name in allowed], mode


def _unsupported(table: ToolTable, kind: str | None = None) -> BadBody:
    """Return why a choice that forces what cannot be had is refused, and where it is declared."""
    for tool in table.hosted:
        if kind is None or tool.type == kind:
            return refused_tool(tool.type, tool.param)
    return BadBody(
        "'tool_choice' forces a tool that 'tools' does not declare as a function or custom tool",
        code="unsupported_tool",
        param="tool_choice",
    )
