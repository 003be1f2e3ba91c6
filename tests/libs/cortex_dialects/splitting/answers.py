"""Answers, cut and put together again, for tests of the splitters."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Protocol

from hypothesis import strategies as st

from cortex_dialects.completion_events import ReasoningDelta, TextDelta, ToolCallDelta
from cortex_dialects.splitting import TOOL_DIALECTS, AnswerEvent, ToolSplitter

TOOLS: dict[str, dict[str, Any] | None] = {"get_weather": None, "get_time": None}
cuts = st.lists(st.integers(0, 400), max_size=12)


class Splitter(Protocol):
    """Whatever splits an answer."""

    def feed(self, text: str, /) -> Sequence[AnswerEvent]:
        """More of the answer."""

    def finish(self) -> Sequence[AnswerEvent]:
        """The answer's end."""


def tool_splitter(
    dialect: str, tools: dict[str, dict[str, Any] | None] | None = None
) -> ToolSplitter:
    """A splitter of one dialect, with two tools on offer unless told otherwise."""
    offered = TOOLS if tools is None else tools
    return ToolSplitter(TOOL_DIALECTS[dialect], offered, id_prefix="call_")


def pieces(text: str, at: Iterable[int]) -> list[str]:
    """The text, cut at these places."""
    edges = [0, *sorted(min(cut, len(text)) for cut in at), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def merged(events: Iterable[AnswerEvent]) -> list[AnswerEvent]:
    """The events, neighbours of a kind joined."""
    out: list[AnswerEvent] = []
    for event in events:
        last = out[-1] if out else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            out[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            out[-1] = ReasoningDelta(last.text + event.text)
        else:
            out.append(event)
    return out


def split(splitter: Splitter, fed: Iterable[str]) -> list[AnswerEvent]:
    """All that a splitter says about these pieces, joined."""
    events = [event for piece in fed for event in splitter.feed(piece)]
    return merged([*events, *splitter.finish()])


def text_of(events: Iterable[AnswerEvent]) -> str:
    """The text in events."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def calls_of(events: Iterable[AnswerEvent]) -> list[ToolCallDelta]:
    """The calls in events."""
    return [event for event in events if isinstance(event, ToolCallDelta)]
