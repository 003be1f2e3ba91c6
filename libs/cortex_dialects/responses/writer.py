"""An answer as the events of a Responses stream.

Items open when something of them comes, so their indices have no gaps. Text and thoughts end when
anything else begins. A call ends then too if its arguments are whole; one that engines interleave
with others stays open, so that nothing of it is lost.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from cortex_dialects.completion_events import (
    CompletionEvent,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from cortex_dialects.failure import Failure
from cortex_dialects.responses.calls import Call
from cortex_dialects.responses.output_items import (
    Events,
    GrowingItem,
    MessageItem,
    ReasoningItem,
)
from cortex_dialects.responses.response_object import (
    INCOMPLETE_REASONS,
    empty_response,
    error_object,
    usage_object,
)
from cortex_dialects.responses.tools import read_tools

_Growing = TypeVar("_Growing", MessageItem, ReasoningItem)


class ResponsesWriter:
    """Writes one answer. `created_at` is in Unix seconds, `request` the client's parsed body.

    Making one raises BadBody where `to_chat` does so about the request's tools, and nothing after.
    """

    def __init__(
        self, *, response_id: str, model: str, created_at: int, request: Mapping[str, Any]
    ) -> None:
        self._tools = read_tools(request)
        self._response = empty_response(response_id, model, created_at, request, self._tools)
        # Ids follow from the answer's own, so that writing it again gives the same.
        self._suffix = response_id.removeprefix("resp_")
        self._numbered = 0
        self._begun = 0
        self._ended: dict[int, dict[str, Any]] = {}
        self._growing: MessageItem | ReasoningItem | None = None
        self._calls: dict[int, Call] = {}
        self._open_calls: list[Call] = []
        self._reason: str | None = None
        self._opened = False
        self._closed = False

    def open(self) -> Events:
        """Return the two events that come before anything else; nothing the second time."""
        if self._opened:
            return []
        self._opened = True
        kinds = ("response.created", "response.in_progress")
        return self._number([{"type": kind, "response": dict(self._response)} for kind in kinds])

    def take(self, event: CompletionEvent) -> Events:
        """Return what an event becomes; nothing once the answer has ended."""
        if self._closed:
            return []
        opening = self.open()
        return opening + self._number(self._taken(event))

    def close(self) -> Events:
        """Return the end of every open item and of the answer."""
        if self._closed:
            return []
        opening = self.open()
        incomplete = INCOMPLETE_REASONS.get(self._reason or "")
        rest = "incomplete" if incomplete else "completed"
        events = self._end_growing(rest) + self._end_calls(rest)
        if incomplete:
            self._response["incomplete_details"] = {"reason": incomplete}
        return opening + self._number([*events, self._last(rest)])

    def fail(self, failure: Failure) -> Events:
        """Return the end of an answer that failed: what is open never ends."""
        if self._closed:
            return []
        opening = self.open()
        self._response["error"] = error_object(failure)
        return opening + self._number([self._last("failed")])

    def answer(self) -> dict[str, Any]:
        """Return the answer as the last event has it."""
        return self._response

    def _number(self, events: Events) -> Events:
        for event in events:
            event["sequence_number"] = self._numbered
            self._numbered += 1
        return events

    def _taken(self, event: CompletionEvent) -> Events:
        match event:
            case TextDelta(text, logprobs) if text:
                begun, message = self._in(MessageItem, "msg")
                return begun + message.more(text, logprobs)
            case ReasoningDelta(text) if text:
                begun, thoughts = self._in(ReasoningItem, "rs")
                return begun + thoughts.more(text)
            case ToolCallDelta():
                return self._call(event)
            case Finished(reason, _):
                self._reason = reason
            case UsageReported(usage):
                self._response["usage"] = usage_object(usage)
        return []

    def _in(self, kind: type[_Growing], prefix: str) -> tuple[Events, _Growing]:
        """Return the growing item of a kind, and the events that began it if it is a new one."""
        if isinstance(self._growing, kind):
            return [], self._growing
        events = self._make_way()
        index = self._next_index()
        item = kind(f"{prefix}_{self._suffix}_{index}", index)
        self._growing = item
        return events + item.begin(), item

    def _call(self, delta: ToolCallDelta) -> Events:
        call = self._calls.get(delta.position)
        events: Events = []
        if call is None or call.is_another(delta):
            events = self._make_way()
            call = Call.begun_by(delta, self._tools, self._suffix, self._next_index())
            self._calls[delta.position] = call
            self._open_calls.append(call)
            events += call.item.begin()
        # To a call that is whole, nothing can be added without breaking it.
        if call in self._open_calls and delta.arguments:
            events += call.more(delta.arguments)
        return events

    def _next_index(self) -> int:
        self._begun += 1
        return self._begun - 1

    def _make_way(self) -> Events:
        """End what ends when something else begins."""
        events = self._end_growing("completed")
        for call in [call for call in self._open_calls if call.is_whole()]:
            self._open_calls.remove(call)
            events += self._end(call.item, "completed")
        return events

    def _end_growing(self, status: str) -> Events:
        if self._growing is None:
            return []
        item, self._growing = self._growing, None
        return self._end(item, status)

    def _end_calls(self, status: str) -> Events:
        events: Events = []
        for call in self._open_calls:
            events += self._end(call.item, "completed" if call.is_whole() else status)
        self._open_calls = []
        return events

    def _end(self, item: GrowingItem, status: str) -> Events:
        events = item.end(status)
        self._ended[events[-1]["output_index"]] = events[-1]["item"]
        return events

    def _last(self, status: str) -> dict[str, Any]:
        self._closed = True
        output = [self._ended[index] for index in sorted(self._ended)]
        self._response |= {"status": status, "output": output}
        return {"type": f"response.{status}", "response": self._response}
