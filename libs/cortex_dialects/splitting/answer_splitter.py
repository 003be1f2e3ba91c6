"""One answer of an engine, split into thoughts, text and tool calls."""

from typing import TypeAlias

from cortex_dialects.completion_events import ReasoningDelta, TextDelta, ToolCallDelta
from cortex_dialects.splitting.reasoning import ReasoningSplitter
from cortex_dialects.splitting.tool_splitter import ToolSplitter

AnswerEvent: TypeAlias = TextDelta | ReasoningDelta | ToolCallDelta


class AnswerSplitter:
    """Takes thoughts off first; calls are looked for only outside of them.

    Without `reasoning` there are no thoughts, and without `tools` (none were offered, or nobody
    knows the model's dialect) their markup is text.
    """

    def __init__(self, reasoning: ReasoningSplitter | None, tools: ToolSplitter | None) -> None:
        self._reasoning = reasoning
        self._tools = tools

    @property
    def called_tools(self) -> bool:
        """A tool was called: an answer that ended by itself ended in `tool_calls`."""
        return self._tools is not None and self._tools.calls > 0

    def feed(self, text: str) -> list[AnswerEvent]:
        """Return what `text` adds."""
        if self._reasoning is None:
            return self._split([TextDelta(text)] if text else [])
        return self._split(self._reasoning.feed(text))

    def finish(self) -> list[AnswerEvent]:
        """Return what was held back: there is no more to come."""
        events = self._split([] if self._reasoning is None else self._reasoning.finish())
        return events if self._tools is None else [*events, *self._tools.finish()]

    def _split(self, said: "list[ReasoningDelta | TextDelta]") -> list[AnswerEvent]:
        if self._tools is None:
            return [*said]
        events: list[AnswerEvent] = []
        for event in said:
            if isinstance(event, TextDelta):
                events += self._tools.feed(event.text)
            else:
                events.append(event)
        return events
