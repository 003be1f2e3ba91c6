"""Llama 3: a JSON object, with or without a marker before it; several are set apart by `;`.

    <|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}
    {"name": "get_weather", "parameters": {"city": "Oslo"}}; {"name": "get_time", "parameters": {}}

Without the marker an object is a call only at the beginning of the answer, or right after another
call, and text is held back only while it may still become `{"name": "…"` with the name of a tool
that was offered (`"type": "function"` may come before it).
"""

from collections.abc import Collection

from cortex_dialects.splitting.json_end import JsonEnd
from cortex_dialects.splitting.tool_dialect import ToolCall, calls_in


class Llama3:
    """Objects behind `<|python_tag|>`, or bare ones."""

    openers = ("<|python_tag|>",)
    closers = ()
    separators = ";"

    def heads(self, names: Collection[str]) -> frozenset[str]:
        """Return how a bare object begins."""
        befores = ("{", '{"type":"function",')
        return frozenset(f'{before}"name":"{name}"' for before in befores for name in names)

    def reader(self) -> JsonEnd:
        """Return a reader for one object."""
        return JsonEnd()

    def parse(self, block: str) -> list[ToolCall] | None:
        """Return the call that an object is."""
        return calls_in(block)
