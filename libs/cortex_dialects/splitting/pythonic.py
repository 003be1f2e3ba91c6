"""Llama 4 and others: a Python list of calls.

    [get_weather(city="Oslo", days=3), get_time()]

A list is a call only at the beginning of the answer, or right after another one, and text is held
back only while it may still become `[name(` with the name of a tool that was offered. Arguments
have names and are literals (python_literals.py).
"""

import re
from collections.abc import Collection

from cortex_dialects.splitting.json_end import Reading
from cortex_dialects.splitting.python_literals import MAX_DEPTH, parse_calls
from cortex_dialects.splitting.tool_dialect import ToolCall

# Outside of strings: brackets, quotes and whatever no literal has there.
_OUTSIDE = re.compile(r"[^\s\w.,:=+\-]")
_INSIDE = {quote: re.compile(rf"[{quote}\\\r\n]") for quote in "'\""}


class Pythonic:
    """Lists of calls."""

    openers = ()
    closers = ()
    separators = ""

    def heads(self, names: Collection[str]) -> frozenset[str]:
        """Return how a list begins."""
        return frozenset(f"[{name}(" for name in names)

    def reader(self) -> "_Reader":
        """Return a reader for one list."""
        return _Reader()

    def parse(self, block: str) -> list[ToolCall] | None:
        """Return the calls in a list."""
        return parse_calls(block)


class _Reader:
    """Follows brackets and strings to the end of the list."""

    def __init__(self) -> None:
        self.state = Reading.GOES_ON
        self._depth = 0
        self._quote = ""
        self._escaped = False

    def feed(self, text: str, start: int, end: int) -> int:
        at = start
        while at < end and self.state in (Reading.GOES_ON, Reading.QUOTED):
            at = self._string(text, at, end) if self._quote else self._structure(text, at, end)
        return at

    def _string(self, text: str, at: int, end: int) -> int:
        if self._escaped:
            self._escaped = False
            return at + 1
        if (found := _INSIDE[self._quote].search(text, at, end)) is None:
            return end
        if found.group() == self._quote:
            self._quote = ""
            self.state = Reading.GOES_ON
        elif found.group() == "\\":
            self._escaped = True
        else:
            self.state = Reading.BROKEN
        return found.end()

    def _structure(self, text: str, at: int, end: int) -> int:
        if (found := _OUTSIDE.search(text, at, end)) is None:
            return end
        match found.group():
            case "'" | '"' as quote:
                self._quote = quote
                self.state = Reading.QUOTED
            case "[" | "(" | "{" if self._depth < MAX_DEPTH:
                self._depth += 1
            case "]" | ")" | "}":
                self._depth -= 1
                self.state = Reading.GOES_ON if self._depth else Reading.ENDED
            case _:
                self.state = Reading.BROKEN
        return found.end()
