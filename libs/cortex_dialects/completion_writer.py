"""Completion events as a chat completion again: for what other dialects' servers answer."""

from typing import Any

from cortex_dialects.completion_events import (
    CompletionEvent,
    Failed,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from cortex_dialects.completion_fold import CompletionFold
from cortex_dialects.failure import Envelope, Failure, render
from cortex_dialects.sse import DONE_FRAME, frame_of


class CompletionWriter:
    """Writes one chat completion, as frames of a stream; `answer` is their fold."""

    def __init__(self, *, completion_id: str, model: str, created: int) -> None:
        self._head = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._fold = CompletionFold()

    def open(self) -> bytes:
        """Return the chunk that says who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def take(self, event: CompletionEvent) -> bytes:
        """Return what an event becomes."""
        match event:
            case TextDelta(text, ()):
                return self._chunk({"content": text})
            case TextDelta(text, logprobs):
                return self._chunk({"content": text}, logprobs={"content": [*logprobs]})
            case ReasoningDelta(text):
                return self._chunk({"reasoning_content": text})
            case ToolCallDelta(position, call, name, arguments):
                return self._chunk({"tool_calls": [_call(position, call, name, arguments)]})
            case Finished(reason, stop_sequence):
                stop = {} if stop_sequence is None else {"stop_reason": stop_sequence}
                return self._chunk({}, finish_reason=reason, **stop)
            case UsageReported(usage):
                return self._frame({"choices": [], "usage": usage.as_json()})
            case Failed(error):
                return self.fail(Failure.parse(error))

    def close(self) -> bytes:
        """Return the end of an answer that came whole."""
        return DONE_FRAME

    def fail(self, failure: Failure) -> bytes:
        """Return the end of an answer that did not."""
        return frame_of(render(failure, Envelope.OPENAI, ""))

    def answer(self) -> dict[str, Any]:
        """Return the whole answer."""
        return self._fold.answer()

    def _chunk(self, delta: dict[str, Any], **choice: Any) -> bytes:
        row = {"index": 0, "delta": delta, "finish_reason": None, **choice}
        return self._frame({"choices": [row]})

    def _frame(self, value: dict[str, Any]) -> bytes:
        frame = frame_of({**self._head, **value})
        self._fold.feed(frame)
        return frame


def _call(position: int, call: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": arguments}
    if name is not None:
        function["name"] = name
    delta: dict[str, Any] = {"index": position, "function": function}
    return delta if call is None else {"id": call, "type": "function", **delta}
