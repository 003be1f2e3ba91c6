"""Mistral: one marker, then a JSON array of calls, or a name and its arguments.

    [TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo"}}]
    [TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]get_time[ARGS]{}
    [TOOL_CALLS]get_weather[CALL_ID]aB3dE5gH7[ARGS]{"city": "Oslo"}

The block ends where its JSON does.
"""

import re
from collections.abc import Collection

from orjson import JSONDecodeError, loads

from cortex_dialects.splitting.json_end import JsonEnd, Reading
from cortex_dialects.splitting.tool_dialect import ToolCall, calls_in

_BLANK = " \t\r\n"
# Before the arguments: a name, and the markers between it and them.
_IN_HEAD = re.compile(r"[\w.\-\[\]]")
_LONGEST_HEAD = 256
_NAMED = re.compile(r"\s*([\w.\-]+)(?:\[CALL_ID\]\w+)?(?:\[ARGS\])?\s*(?=\{)")


class Mistral:
    """Blocks of `[TOOL_CALLS]`."""

    openers = ("[TOOL_CALLS]",)
    closers = ()
    separators = ""

    def heads(self, names: Collection[str]) -> frozenset[str]:  # noqa: ARG002  # the protocol's
        """Return none: a call has its marker."""
        return frozenset()

    def reader(self) -> "_Reader":
        """Return a reader for one block."""
        return _Reader()

    def parse(self, block: str) -> list[ToolCall] | None:
        """Return the calls of an array, or the one that is named."""
        if (named := _NAMED.match(block)) is None:
            return calls_in(block)
        try:
            arguments = loads(block[named.end() :])
        except JSONDecodeError:
            return None
        return [ToolCall(named.group(1), arguments)]


class _Reader:
    """Follows the name, if one comes first, and then the JSON."""

    def __init__(self) -> None:
        self._json: JsonEnd | None = None
        self._head = ""
        self._broken = False

    @property
    def state(self) -> Reading:
        if self._broken:
            return Reading.BROKEN
        return Reading.GOES_ON if self._json is None else self._json.state

    def feed(self, text: str, start: int, end: int) -> int:
        at = start
        while self._json is None and at < end:
            character = text[at]
            if character == "{" or (character == "[" and not self._head):
                self._json = JsonEnd("{" if self._head else "[")
                break
            at += 1
            if character in _BLANK and (not self._head or self._head.endswith("]")):
                continue
            self._head += character
            if len(self._head) > _LONGEST_HEAD or _IN_HEAD.match(character) is None:
                self._broken = True
                return at
        return at if self._json is None else self._json.feed(text, at, end)
