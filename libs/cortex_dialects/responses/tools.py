"""The tools of a request, and the names under which a node's model knows them.

A node knows functions only. A `custom` tool, which takes free text, becomes a function of one
string; a `namespace` becomes its functions, under names that hold both. Hosted tools, which
OpenAI would run itself, nobody here can run: they are refused, but for those that agents offer
with every request whether they are needed or not, which are left out and remembered.
"""

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

from cortex_dialects.bad_body import BadBody
from cortex_dialects.responses.fields import (
    flag_of,
    name_of,
    object_of,
    objects_of,
    text_of,
)

#: What agents offer unasked. Search for late tools has nothing to find: all are shown at once.
_OFFERED_UNASKED: Final = frozenset({"web_search", "web_search_preview", "tool_search"})


class ToolKind(Enum):
    """How a tool takes its input."""

    FUNCTION = "function"
    CUSTOM = "custom"


class DeclaredTool(NamedTuple):
    """A tool a model may call. `wire_name` is its name on the node; `chat` its form there."""

    kind: ToolKind
    namespace: str | None
    name: str
    wire_name: str
    chat: dict[str, Any]


class HostedTool(NamedTuple):
    """A tool that cannot be had here, and where the request declares it."""

    type: str
    param: str


class ToolTable:
    """What a request declares: `declared`, `hosted`, and `shown` for the answer to repeat."""

    def __init__(
        self, declared: list[DeclaredTool], hosted: list[HostedTool], shown: list[dict[str, Any]]
    ) -> None:
        self.declared = declared
        self.hosted = hosted
        self.shown = shown
        self._by_wire_name = {tool.wire_name: tool for tool in declared}
        self._by_name = {(tool.namespace, tool.name): tool for tool in declared}

    def called(self, wire_name: str) -> DeclaredTool | None:
        """Return the tool that the node's model calls so."""
        return self._by_wire_name.get(wire_name)

    def find(self, namespace: str | None, name: str) -> DeclaredTool | None:
        """Return the tool that the client calls so."""
        return self._by_name.get((namespace, name))

    def wire_name(self, namespace: str | None, name: str) -> str:
        """Return the node's name of a tool, of one that is no longer declared as well."""
        found = self.find(namespace, name)
        return found.wire_name if found else _joined(namespace, name)


class _Declaration(NamedTuple):
    spec: dict[str, Any]
    namespace: str | None
    group_description: str | None


def read_tools(body: Mapping[str, Any]) -> ToolTable:
    """Return the tools of a request body. Raises BadBody."""
    declarations: list[_Declaration] = []
    hosted: list[HostedTool] = []
    shown: list[dict[str, Any]] = []
    for where, tool in _tools(body):
        match tool.get("type"):
            case "function" | "custom":
                spec = _spec(tool, where)
                shown.append(spec)
                declarations.append(_Declaration(spec, None, None))
            case "namespace":
                group = _group(tool, where)
                shown.append(group)
                # The first tool speaks for its group; repeating it with each would cost context.
                description: str | None = group["description"]
                for spec in group["tools"]:
                    declarations.append(_Declaration(spec, group["name"], description))
                    description = None
            case _:
                kind = name_of(tool, "type", f"{where}.")
                if kind not in _OFFERED_UNASKED:
                    raise refused_tool(kind, where)
                hosted.append(HostedTool(kind, where))
    return ToolTable(_named(declarations), hosted, shown)


def refused_tool(kind: str, param: str) -> BadBody:
    """Return why a hosted tool is refused."""
    return BadBody(
        f"the tool '{kind}' is run by OpenAI and cannot be had here;"
        " declare functions and let 'tool_choice' be 'auto'",
        code="unsupported_tool",
        param=param,
    )


def _tools(body: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for position, tool in enumerate(objects_of(body, "tools")):
        yield f"tools[{position}]", tool
    items = body.get("input")
    for at, item in enumerate(items if isinstance(items, list) else []):
        if isinstance(item, dict) and item.get("type") == "additional_tools":
            for position, tool in enumerate(objects_of(item, "tools", f"input[{at}].")):
                yield f"input[{at}].tools[{position}]", tool


def _spec(tool: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a function or custom tool as an answer shows it."""
    nested = tool.get("function")
    # Some clients wrap a function as chat completions have it.
    said = nested if isinstance(nested, dict) and "name" not in tool else tool
    name = name_of(said, "name", f"{where}.")
    description = text_of(said, "description", f"{where}.")
    if tool["type"] == "custom":
        spec = {"type": "custom", "name": name, "description": description}
        form = object_of(said, "format", f"{where}.")
        return spec if form is None else {**spec, "format": _format(form, f"{where}.format.")}
    return {
        "type": "function",
        "name": name,
        "description": description,
        "parameters": object_of(said, "parameters", f"{where}."),
        "strict": flag_of(said, "strict", f"{where}."),
    }


def _format(form: dict[str, Any], where: str) -> dict[str, Any]:
    match form.get("type"):
        case "text":
            return {"type": "text"}
        case "grammar":
            if (syntax := form.get("syntax")) not in ("lark", "regex"):
                raise BadBody(f"'{where}syntax' must be 'lark' or 'regex'", param=f"{where}syntax")
            definition = name_of(form, "definition", where)
            return {"type": "grammar", "syntax": syntax, "definition": definition}
        case _:
            raise BadBody(f"'{where}type' must be 'text' or 'grammar'", param=f"{where}type")


def _group(tool: dict[str, Any], where: str) -> dict[str, Any]:
    tools = objects_of(tool, "tools", f"{where}.")
    return {
        "type": "namespace",
        "name": name_of(tool, "name", f"{where}."),
        "description": text_of(tool, "description", f"{where}.") or "",
        "tools": [
            _spec(one, f"{where}.tools[{position}]")
            for position, one in enumerate(tools)
            if one.get("type") in ("function", "custom")
        ],
    }


def _named(declarations: list[_Declaration]) -> list[DeclaredTool]:
    """Give each tool a name of its own on the node; of tools named alike the first holds."""
    first: dict[tuple[str | None, str], _Declaration] = {}
    for one in declarations:
        first.setdefault((one.namespace, one.spec["name"]), one)
    # Plain names stay as they are, whatever the names in groups come to.
    taken = {name for namespace, name in first if namespace is None}
    declared: list[DeclaredTool] = []
    for (namespace, name), one in first.items():
        wire_name = name if namespace is None else _free(_joined(namespace, name), taken)
        taken.add(wire_name)
        kind = ToolKind(one.spec["type"])
        chat = _chat(one.spec, kind, wire_name, one.group_description)
        declared.append(DeclaredTool(kind, namespace, name, wire_name, chat))
    return declared


def _joined(namespace: str | None, name: str) -> str:
    if not namespace:
        return name
    return namespace + name if namespace.endswith("__") else f"{namespace}__{name}"


def _free(name: str, taken: set[str]) -> str:
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    return found


def _chat(
    spec: dict[str, Any], kind: ToolKind, wire_name: str, group_description: str | None
) -> dict[str, Any]:
    descriptions = [group_description, spec["description"]]
    function: dict[str, Any] = {"name": wire_name}
    if kind is ToolKind.CUSTOM:
        descriptions.append(_grammar(spec.get("format")))
        function["parameters"] = {
            "type": "object",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
            "additionalProperties": False,
        }
    else:
        for field in ("parameters", "strict"):
            if spec[field] is not None:
                function[field] = spec[field]
    if description := "\n\n".join(filter(None, descriptions)):
        function["description"] = description
    return {"type": "function", "function": function}


def _grammar(form: dict[str, Any] | None) -> str | None:
    """Return in words what OpenAI would hold the model to."""
    if form is None or form["type"] == "text":
        return None
    return f"`input` must follow this {form['syntax']} grammar:\n{form['definition']}"
