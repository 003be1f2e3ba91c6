"""A completion as the events of an Anthropic message, in the order that Anthropic's clients expect.

`message_start`, then for each block, numbered without gaps, `content_block_start`, its deltas and
`content_block_stop`, then `message_delta` with the stop reason and the usage, then `message_stop`.
Only one block is open at a time. What comes for another, while a call is open that is not whole
yet, waits for its turn.
"""

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

from cortex_dialects.completion_events import (
    CompletionEvent,
    Failed,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from cortex_dialects.failure import Envelope, Failure, render
from cortex_dialects.messages.blocks import Block, Call, Prose
from cortex_dialects.usage import Usage

Events: TypeAlias = list[dict[str, Any]]

PING_FRAME: Final = b'event: ping\ndata: {"type":"ping"}\n\n'

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


class MessageWriter:
    """Writes one message. `show_thinking` False leaves thoughts out, for clients that want none.

    `known_calls` are ids that the conversation has already. Some engines number the calls of each
    answer anew, and agents take a call whose id they know for one that they have carried out.
    """

    def __init__(
        self,
        *,
        message_id: str,
        model: str,
        request_id: str,
        show_thinking: bool = True,
        known_calls: Iterable[str] = (),
    ) -> None:
        self._id = message_id
        self._model = model
        self._request_id = request_id
        self._show_thinking = show_thinking
        self._known_calls = set(known_calls)
        self._content: list[dict[str, Any]] = []
        self._queue: list[Block] = []
        self._open: Block | None = None
        self._calls: dict[int, Call] = {}
        self._begun = 0
        self._stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self._usage: Usage | None = None

    def open(self) -> Events:
        """Return `message_start`. How long the prompt is shows only at the end."""
        return [{"type": "message_start", "message": self._message([], None)}]

    def take(self, event: CompletionEvent) -> Events:
        """Return what an event becomes."""
        match event:
            case TextDelta(text):
                return self._say("text", text)
            case ReasoningDelta(text):
                return self._say("thinking", text) if self._show_thinking else []
            case ToolCallDelta():
                return self._call(event)
            case Finished(reason, stop_sequence):
                self._finish(reason, stop_sequence)
            case UsageReported(usage):
                self._usage = usage
            case Failed():
                pass
        return []

    def close(self) -> Events:
        """Return the end of the message."""
        events = self._tell(closing=True)
        delta = {"stop_reason": self._stop_reason, "stop_sequence": self._stop_sequence}
        return [
            *events,
            {"type": "message_delta", "delta": delta, "usage": message_usage(self._usage)},
            {"type": "message_stop"},
        ]

    def fail(self, failure: Failure) -> Events:
        """Return the error event: blocks stay open, so that nobody takes them for whole."""
        return [render(failure, Envelope.ANTHROPIC, self._request_id)]

    def answer(self) -> dict[str, Any]:
        """Return the whole message."""
        return self._message(self._content, self._stop_reason)

    def _message(self, content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": self._stop_sequence,
            "usage": message_usage(self._usage),
        }

    def _finish(self, reason: str, stop_sequence: str | None) -> None:
        self._stop_reason = _STOP_REASONS.get(reason, "end_turn")
        if self._stop_reason == "end_turn" and self._calls:
            self._stop_reason = "tool_use"
        elif self._stop_reason == "end_turn" and stop_sequence is not None:
            self._stop_reason, self._stop_sequence = "stop_sequence", stop_sequence

    def _say(self, kind: Literal["text", "thinking"], text: str) -> Events:
        last = self._queue[-1] if self._queue else None
        if not isinstance(last, Prose) or last.kind != kind:
            last = Prose(kind)
            self._queue.append(last)
        last.more(text)
        return self._tell()

    def _call(self, delta: ToolCallDelta) -> Events:
        call = self._calls.get(delta.position)
        if call is None or call.is_another(delta):
            spare_id = f"toolu_{self._id.removeprefix('msg_')}_{self._begun}"
            call = Call(spare_id, self._known_calls)
            self._begun += 1
            self._calls[delta.position] = call
            self._queue.append(call)
        # To a call that has ended, nothing can be added: it was whole.
        call.more(delta)
        return self._tell()

    def _tell(self, *, closing: bool = False) -> Events:
        """Return the news of the first block, and of those behind it whose turn has come."""
        events: Events = []
        while self._queue:
            block = self._queue[0]
            index = len(self._content)
            if block is not self._open:
                if not (block.can_begin or closing):
                    break
                self._open = block
                begun = {"type": "content_block_start", "index": index}
                events.append({**begun, "content_block": block.begin()})
            if (delta := block.news()) is not None:
                events.append(_delta(index, delta))
            if not closing and (len(self._queue) == 1 or not block.is_whole):
                break
            if (delta := block.last_words()) is not None:
                events.append(_delta(index, delta))
            events.append({"type": "content_block_stop", "index": index})
            self._content.append(block.content())
            self._queue.pop(0)
        return events


def _delta(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def message_usage(usage: Usage | None) -> dict[str, Any]:
    """Return usage as Anthropic counts it: `input_tokens` without what came from the cache."""
    known = usage or Usage()
    cached = min(known.cached or 0, known.prompt)
    return {
        "input_tokens": known.prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": known.completion,
    }
