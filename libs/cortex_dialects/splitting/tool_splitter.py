"""Tool calls and text, told apart in an engine's text.

1. A block of calls ends where its dialect says. A marker inside of a string is the string's.
2. A complete block gives one event for each call, with all its arguments, coerced by the tool's
   schema. One call that is malformed, or of a tool that was not offered, makes its block text.
3. A block that is no calls, that is unfinished at the end, or longer than MAX_BLOCK_CHARS comes
   out as the text it was, markers included. Where it swallowed markers (a quote was left open),
   the text behind its opener is read once more, and then every marker counts.
4. Other text stays as it is. Blank text is dropped between calls, before the first thing said if
   that is a call, and behind the last call. (Blank: space, tab, CR, LF; between calls also what
   the dialect sets them apart with.)
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from orjson import JSONEncodeError, dumps

from cortex_dialects.completion_events import TextDelta, ToolCallDelta
from cortex_dialects.splitting.coercion import coerce_arguments
from cortex_dialects.splitting.json_end import Reading
from cortex_dialects.splitting.markers import MarkerSearch
from cortex_dialects.splitting.tool_dialect import ToolCall, ToolDialect

#: A longer block is text, never unbounded memory.
MAX_BLOCK_CHARS = 1024 * 1024

_BLANK = " \t\r\n"

CallOrText: TypeAlias = ToolCallDelta | TextDelta


class ToolSplitter:
    """Splits an answer into text and calls of the offered tools, however it was cut.

    `tools`: the JSON schema of each tool's parameters by the tool's name, None where there is none.
    Ids are `id_prefix` and the call's position. `calls` counts what was called so far.
    """

    def __init__(
        self, dialect: ToolDialect, tools: Mapping[str, dict[str, Any] | None], *, id_prefix: str
    ) -> None:
        self.calls = 0
        self._dialect = dialect
        self._tools = tools
        self._id_prefix = id_prefix
        self._markers = MarkerSearch((*dialect.openers, *dialect.closers))
        self._heads = dialect.heads(tools)
        self._tail = ""
        self._block: _Block | None = None
        self._head = _Head()
        # Nothing visible was said since the beginning, or since the last call.
        self._fresh = True
        self._blank = _Pieces()
        self._text: list[str] = []
        self._events: list[CallOrText] = []

    def feed(self, text: str) -> list[CallOrText]:
        """Return what `text` adds; what may still become a call is held back."""
        self._tail = self._read(self._tail + text if self._tail else text)
        return self._said()

    def finish(self) -> list[CallOrText]:
        """Return what was held back: there is no more to come."""
        self._read(self._tail, final=True)
        self._tail = ""
        while self._block is not None:
            self._give_up(self._block)
        self._say(self._head.take())
        rest = self._blank.take()
        if rest.strip(_BLANK) or not self.calls:
            self._text.append(rest)
        return self._said()

    def _read(self, text: str, *, final: bool = False, again: bool = False) -> str:
        """Take in text; return its end where that may be a marker's beginning."""
        at = 0
        while (found := self._markers.find(text, at)) is not None:
            self._plain(text, at, found.start())
            self._marker(found.group(), again=again)
            at = found.end()
        end = len(text) if final else self._markers.settled(text, at)
        self._plain(text, at, end)
        return text[end:]

    def _plain(self, text: str, start: int, end: int) -> None:
        """Take in text without markers."""
        at = start
        while at < end:
            if self._block is not None:
                at = self._grow(self._block, text, at, end)
            elif self._heads and self._fresh:
                at = self._begin(text, at, end)
            else:
                self._say(text[at:end])
                return

    def _marker(self, marker: str, *, again: bool) -> None:
        block = self._block
        if block is not None and block.reader.state is Reading.QUOTED and not again:
            block.swallow(marker)
            return
        if block is not None and marker in self._dialect.closers:
            block.text.add(marker)
            self._end(block, block.text.joined()[len(block.opener) : -len(marker)])
            return
        if block is not None:
            self._give_up(block)
            if self._block is not None:
                # Read once more, the block's text ends in another open block.
                self._marker(marker, again=again)
                return
        self._say(self._head.take())
        if marker in self._dialect.openers:
            self._block = _Block(self._dialect, marker)
        else:
            self._say(marker)

    def _begin(self, text: str, start: int, end: int) -> int:
        """Where a call without a marker may begin, read its beginning; return how far."""
        at = start
        if not self._head.seen:
            blank = self._blanks()
            while at < end and text[at] in blank:
                at += 1
            self._say(text[start:at])
        while at < end and self._fresh:
            self._head.add(text[at])
            at += 1
            if self._head.seen in self._heads:
                self._begin_block()
                break
            if not self._head.may_become(self._heads):
                self._say(self._head.take())
        return at

    def _begin_block(self) -> None:
        self._block = block = _Block(self._dialect, "")
        head = self._head.take()
        self._grow(block, head, 0, len(head))

    def _grow(self, block: "_Block", text: str, start: int, end: int) -> int:
        """Take in text of a block; return how far: to the block's end, or where it broke."""
        limit = min(end, start + MAX_BLOCK_CHARS + 1 - block.text.size)
        at = block.reader.feed(text, start, max(start, limit))
        block.text.add(text[start:at])
        if block.reader.state is Reading.BROKEN or block.text.size > MAX_BLOCK_CHARS:
            self._give_up(block)
        elif block.reader.state is Reading.ENDED:
            self._end(block, block.text.joined()[len(block.opener) :])
        return at

    def _end(self, block: "_Block", body: str) -> None:
        """Say the calls of a block that is complete."""
        calls = self._dialect.parse(body)
        events = None if calls is None else self._called(calls)
        if not events:
            self._give_up(block)
            return
        self._block = None
        self._blank.take()
        self._settle_text()
        self._events += events
        self.calls += len(events)
        self._fresh = True

    def _called(self, calls: list[ToolCall]) -> list[CallOrText] | None:
        """Return the calls as events, None where one is of no offered tool or cannot be written."""
        events: list[CallOrText] = []
        for position, call in enumerate(calls, self.calls):
            if call.name not in self._tools:
                return None
            try:
                arguments = dumps(coerce_arguments(call.arguments, self._tools[call.name]))
            except JSONEncodeError:
                return None
            call_id = f"{self._id_prefix}{position}"
            events.append(ToolCallDelta(position, call_id, call.name, arguments.decode()))
        return events

    def _give_up(self, block: "_Block") -> None:
        """Turn a block into the text it was."""
        self._block = None
        text = block.text.joined()
        if not block.swallowed:
            self._say(text)
            return
        self._say(block.opener)
        self._read(text[len(block.opener) :], final=True, again=True)

    def _say(self, text: str) -> None:
        if not text:
            return
        if self._fresh:
            short = self._blank.size + len(text) <= MAX_BLOCK_CHARS
            if short and not text.strip(self._blanks()):
                self._blank.add(text)
                return
            self._fresh = False
        if self._blank.size:
            self._text.append(self._blank.take())
        self._text.append(text)

    def _blanks(self) -> str:
        return _BLANK + self._dialect.separators if self.calls else _BLANK

    def _said(self) -> list[CallOrText]:
        """Return the events that are ready, and forget them."""
        self._settle_text()
        events, self._events = self._events, []
        return events

    def _settle_text(self) -> None:
        if self._text:
            self._events.append(TextDelta("".join(self._text)))
            self._text.clear()


class _Pieces:
    """Text that grows by pieces."""

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[str] = []

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self.size += len(text)

    def joined(self) -> str:
        return "".join(self._pieces)

    def take(self) -> str:
        """Return the text and forget it."""
        text = self.joined()
        self._pieces.clear()
        self.size = 0
        return text


class _Block:
    """A block of calls that is being read."""

    def __init__(self, dialect: ToolDialect, opener: str) -> None:
        self.opener = opener
        self.reader = dialect.reader()
        self.text = _Pieces()
        self.text.add(opener)
        self.swallowed = False

    def swallow(self, marker: str) -> None:
        """Take in a marker that is part of a string."""
        self.text.add(marker)
        self.reader.feed(marker, 0, len(marker))
        self.swallowed = True


class _Head:
    """What may be the beginning of a call without a marker; `seen` is it without blank text."""

    def __init__(self) -> None:
        self.seen = ""
        self._text = _Pieces()

    def add(self, character: str) -> None:
        self._text.add(character)
        if character not in _BLANK:
            self.seen += character

    def may_become(self, heads: frozenset[str]) -> bool:
        return self._text.size <= MAX_BLOCK_CHARS and any(
            head.startswith(self.seen) for head in heads
        )

    def take(self) -> str:
        """Return the text and forget it."""
        self.seen = ""
        return self._text.take()
