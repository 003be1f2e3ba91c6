"""Hermes and Qwen: JSON between tags.

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Oslo"}}
    </tool_call>

Qwen's coders write tags instead of JSON between the same tags (qwen_xml.py), so the first character
that is not blank decides. A closing tag inside of a string or of a parameter is part of it.
"""

from collections.abc import Collection

from cortex_dialects.splitting.json_end import JsonEnd, Reading
from cortex_dialects.splitting.qwen_xml import FunctionReader, parse_function
from cortex_dialects.splitting.tool_dialect import ToolCall, calls_in

_BLANK = " \t\r\n"


class Hermes:
    """Blocks of `<tool_call>`, with JSON or with tags inside."""

    openers = ("<tool_call>",)
    closers = ("</tool_call>",)
    separators = ""

    def heads(self, names: Collection[str]) -> frozenset[str]:  # noqa: ARG002  # the protocol's
        """Return none: a call has its tag."""
        return frozenset()

    def reader(self) -> "_Reader":
        """Return a reader for one block."""
        return _Reader()

    def parse(self, block: str) -> list[ToolCall] | None:
        """Return the call in a block."""
        if block.lstrip(_BLANK).startswith("<"):
            return parse_function(block)
        return calls_in(block)


class _Reader:
    """Follows a block by what it begins with; only blank text may follow before the closing tag."""

    def __init__(self) -> None:
        self.state = Reading.GOES_ON
        self._inner: JsonEnd | FunctionReader | None = None
        self._said = False

    def feed(self, text: str, start: int, end: int) -> int:
        at = start
        if self._inner is None:
            at = _skip_blank(text, at, end)
            if at == end:
                return end
            self._inner = FunctionReader() if text[at] == "<" else JsonEnd()
        if not self._said:
            at = self._inner.feed(text, at, end)
            self._said = self._inner.state is Reading.ENDED
            self.state = Reading.GOES_ON if self._said else self._inner.state
        if self._said and (at := _skip_blank(text, at, end)) < end:
            self.state = Reading.BROKEN
            return at + 1
        return at


def _skip_blank(text: str, at: int, end: int) -> int:
    while at < end and text[at] in _BLANK:
        at += 1
    return at
