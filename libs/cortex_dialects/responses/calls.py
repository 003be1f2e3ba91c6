"""A model's call of a tool while it comes, under the name by which the client knows the tool."""

from typing import Any

from orjson import JSONDecodeError, loads

from cortex_dialects.completion_events import ToolCallDelta
from cortex_dialects.responses.output_items import (
    CustomCallItem,
    Events,
    FunctionCallItem,
    GrowingItem,
)
from cortex_dialects.responses.tools import ToolKind, ToolTable


class Call:
    """One call: its item, and the arguments as the engine gave them."""

    def __init__(self, item: GrowingItem, engine_id: str | None) -> None:
        self.item = item
        self._engine_id = engine_id
        self._pieces: list[str] = []

    @classmethod
    def begun_by(cls, delta: ToolCallDelta, tools: ToolTable, suffix: str, index: int) -> "Call":
        """Return the call that a delta begins, at `index` of the answer's items."""
        name = delta.name or ""
        tool = tools.called(name)
        head: dict[str, Any] = {
            "call_id": delta.id or f"call_{suffix}_{index}",
            "name": tool.name if tool else name,
        }
        if tool and tool.namespace is not None:
            head["namespace"] = tool.namespace
        if tool and tool.kind is ToolKind.CUSTOM:
            return cls(CustomCallItem(f"ctc_{suffix}_{index}", index, head), delta.id)
        return cls(FunctionCallItem(f"fc_{suffix}_{index}", index, head), delta.id)

    def more(self, arguments: str) -> Events:
        """Return the events of more arguments."""
        self._pieces.append(arguments)
        return self.item.more(arguments)

    def is_whole(self) -> bool:
        """Tell whether the arguments are a complete object, so that nothing may follow."""
        try:
            return isinstance(loads("".join(self._pieces)), dict)
        except JSONDecodeError:
            return False

    def is_another(self, delta: ToolCallDelta) -> bool:
        """Tell whether a delta begins a new call: some engines give each the same position."""
        return None not in (delta.id, delta.name, self._engine_id) and delta.id != self._engine_id
