"""Thoughts and answer, told apart in an engine's text.

Thoughts come before the answer: an open marker counts until the first visible text, so that an
answer may speak about the markers. Chat templates write newlines after both markers and none of
them is meant: the newlines right after an open or a close marker are dropped, and so is blank text
before an open marker. Everything else comes out as it came in.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from cortex_dialects.completion_events import ReasoningDelta, TextDelta
from cortex_dialects.splitting.markers import MarkerSearch

_NEWLINES = "\r\n"
_BLANK = " \t\r\n"
#: More blank text than this before the answer is text.
_MOST_BLANK = 4096


class ThinkMarkers(NamedTuple):
    """What a model writes before and after its thoughts."""

    open: str
    close: str


THINK_MARKERS = (
    ThinkMarkers("<think>", "</think>"),
    ThinkMarkers("[THINK]", "[/THINK]"),
    ThinkMarkers("<thought>", "</thought>"),
    ThinkMarkers("<reasoning>", "</reasoning>"),
    ThinkMarkers("<seed:think>", "</seed:think>"),
    ThinkMarkers("<|START_THINKING|>", "<|END_THINKING|>"),
)

ThoughtOrText: TypeAlias = ReasoningDelta | TextDelta


def opened_by(prompt_tail: str, markers: Sequence[ThinkMarkers]) -> bool:
    """Tell whether a prompt ends in an open marker, blank text aside.

    A marker further up is somebody's words, not the template's.
    """
    return prompt_tail.rstrip().endswith(tuple(pair.open for pair in markers))


class ReasoningSplitter:
    """Splits an answer into thoughts and text, however it was cut.

    `open`: the prompt opened the thoughts, so the answer begins with them and any close marker
    ends them. Without a close marker all is thoughts.
    """

    def __init__(self, markers: Sequence[ThinkMarkers], *, open: bool) -> None:  # noqa: A002  # the marker's word
        self._opens = MarkerSearch(pair.open for pair in markers)
        self._closes = {pair.open: MarkerSearch([pair.close]) for pair in markers}
        self._close = MarkerSearch(pair.close for pair in markers) if open else None
        self._answering = False
        # Newlines are dropped until something else comes.
        self._trim = open
        self._held = ""

    def feed(self, text: str) -> list[ThoughtOrText]:
        """Return what `text` adds; the possible beginning of a marker is held back."""
        if self._answering:
            return [TextDelta(text)] if text else []
        events: list[ThoughtOrText] = []
        rest: str | None = self._held + text
        while rest is not None:
            if self._close is None:
                rest = self._wait(rest, events)
            else:
                rest = self._think(rest, self._close, events)
        return events

    def finish(self) -> list[ThoughtOrText]:
        """Return what was held back."""
        rest, self._held = self._held, ""
        if not rest:
            return []
        return [TextDelta(rest) if self._close is None else ReasoningDelta(rest)]

    def _think(self, text: str, close: MarkerSearch, events: list[ThoughtOrText]) -> str | None:
        """Take in thoughts; return what follows their end, None where it has not come."""
        text = self._trimmed(text)
        found = close.find(text)
        end = close.settled(text) if found is None else found.start()
        if end:
            events.append(ReasoningDelta(text[:end]))
        if found is None:
            self._held = text[end:]
            return None
        self._close, self._trim, self._held = None, True, ""
        return text[found.end() :]

    def _wait(self, text: str, events: list[ThoughtOrText]) -> str | None:
        """Wait for an open marker or the answer; return what follows the marker."""
        text = self._trimmed(text)
        begun = len(text) - len(text.lstrip(_BLANK))
        if begun <= _MOST_BLANK:
            found = self._opens.find(text, begun)
            if found is not None and found.start() == begun:
                self._close, self._trim, self._held = self._closes[found.group()], True, ""
                return text[found.end() :]
            if self._opens.settled(text, begun) == begun:
                self._held = text
                return None
        self._answering, self._held = True, ""
        events.append(TextDelta(text))
        return None

    def _trimmed(self, text: str) -> str:
        if self._trim:
            text = text.lstrip(_NEWLINES)
            self._trim = not text
        return text
