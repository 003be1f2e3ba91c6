"""A completion as the events of an Anthropic message, in the order that Anthropic's clients expect.

`message_start`, then for each block, numbered without gaps, `content_block_start`, its deltas and
`content_block_stop`, then `message_delta` with the stop reason and the usage, then `message_stop`.
Only one block is open at a time, so pieces of a tool call that come while another is open wait.
"""

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from orjson import JSONDecodeError, dumps, loads

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
from cortex_dialects.usage import Usage

Events: TypeAlias = list[dict[str, Any]]

PING_FRAME: Final = b'event: ping\ndata: {"type":"ping"}\n\n'
#: Thinking blocks carry a signature, and clients send it back. Ours says only where it came from.
SIGNATURE: Final = "Y29ydGV4"

_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


@dataclass(slots=True)
class _Call:
    """A tool call as far as it came. `waiting` are the arguments that no event carried yet."""

    id: str | None = None
    name: str | None = None
    arguments: list[str] = field(default_factory=list)
    waiting: str = ""


@dataclass(slots=True)
class _State:
    """What was written so far: whole blocks, the open one, and calls that wait their turn."""

    content: list[dict[str, Any]] = field(default_factory=list)
    kind: str | None = None
    pieces: list[str] = field(default_factory=list)
    position: int | None = None
    calls: dict[int, _Call] = field(default_factory=dict)
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage | None = None


class MessageWriter:
    """Writes one message. `show_thinking` False leaves thoughts out, for clients that want none."""

    def __init__(
        self, *, message_id: str, model: str, request_id: str, show_thinking: bool = True
    ) -> None:
        self._id = message_id
        self._model = model
        self._request_id = request_id
        self._show_thinking = show_thinking
        self._state = _State()

    def open(self) -> Events:
        """Return `message_start`. How long the prompt is shows only at the end."""
        return [{"type": "message_start", "message": self._message([], None)}]

    def take(self, event: CompletionEvent) -> Events:
        """Return what an event becomes."""
        match event:
            case TextDelta(text):
                return self._say("text", {"type": "text_delta", "text": text}, text)
            case ReasoningDelta(text):
                if not self._show_thinking:
                    return []
                return self._say("thinking", {"type": "thinking_delta", "thinking": text}, text)
            case ToolCallDelta():
                return self._call(event)
            case Finished(reason, stop_sequence):
                self._finish(reason, stop_sequence)
            case UsageReported(usage):
                self._state.usage = usage
            case Failed():
                pass
        return []

    def close(self) -> Events:
        """Return the end of the message."""
        state = self._state
        events = self._close_block()
        for position in sorted(state.calls):
            events += self._open_call(position)
            events += self._close_block()
        delta = {"stop_reason": state.stop_reason, "stop_sequence": state.stop_sequence}
        return [
            *events,
            {"type": "message_delta", "delta": delta, "usage": message_usage(state.usage)},
            {"type": "message_stop"},
        ]

    def fail(self, failure: Failure) -> Events:
        """Return the error event: blocks stay open, so that nobody takes them for whole."""
        return [render(failure, Envelope.ANTHROPIC, self._request_id)]

    def answer(self) -> dict[str, Any]:
        """Return the whole message."""
        return self._message(self._state.content, self._state.stop_reason)

    def _message(self, content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": self._state.stop_sequence,
            "usage": message_usage(self._state.usage),
        }

    def _finish(self, reason: str, stop_sequence: str | None) -> None:
        state = self._state
        state.stop_reason = _STOP_REASONS.get(reason, "end_turn")
        if state.stop_reason == "end_turn" and self._called():
            state.stop_reason = "tool_use"
        elif state.stop_reason == "end_turn" and stop_sequence is not None:
            state.stop_reason, state.stop_sequence = "stop_sequence", stop_sequence

    def _called(self) -> bool:
        state = self._state
        written = (block["type"] == "tool_use" for block in state.content)
        return state.kind == "tool_use" or bool(state.calls) or any(written)

    def _say(self, kind: str, delta: dict[str, Any], text: str) -> Events:
        state = self._state
        events: Events = []
        if state.kind != kind:
            events = self._close_block()
            empty = {"text": ""} if kind == "text" else {"thinking": "", "signature": ""}
            events.append(self._open_block(kind, {"type": kind, **empty}))
        state.pieces.append(text)
        index = len(state.content)
        events.append({"type": "content_block_delta", "index": index, "delta": delta})
        return events

    def _call(self, delta: ToolCallDelta) -> Events:
        state = self._state
        call = state.calls.setdefault(delta.position, _Call())
        call.id = call.id or delta.id
        call.name = call.name or delta.name
        call.arguments.append(delta.arguments)
        call.waiting += delta.arguments
        events: Events = []
        if state.position is not None and state.position != delta.position:
            if not _is_whole("".join(state.calls[state.position].arguments)):
                return []
            events = self._close_block()
        if state.position is None:
            if call.name is None:
                return events
            events += self._close_block() + self._open_call(delta.position)
        elif call.waiting:
            events.append(self._arguments(call))
        return events

    def _open_call(self, position: int) -> Events:
        state = self._state
        call = state.calls[position]
        state.position = position
        block = {
            "type": "tool_use",
            "id": call.id or f"toolu_{self._id.removeprefix('msg_')}_{position}",
            "name": call.name or "",
            "input": {},
        }
        events = [self._open_block("tool_use", block)]
        if call.waiting:
            events.append(self._arguments(call))
        return events

    def _arguments(self, call: _Call) -> dict[str, Any]:
        text, call.waiting = call.waiting, ""
        delta = {"type": "input_json_delta", "partial_json": text}
        return {"type": "content_block_delta", "index": len(self._state.content), "delta": delta}

    def _open_block(self, kind: str, block: dict[str, Any]) -> dict[str, Any]:
        state = self._state
        state.kind, state.pieces = kind, []
        if kind == "tool_use":
            state.pieces = [block["id"], block["name"]]
        return {
            "type": "content_block_start",
            "index": len(state.content),
            "content_block": block,
        }

    def _close_block(self) -> Events:
        state = self._state
        if state.kind is None:
            return []
        index = len(state.content)
        events: Events = []
        if state.kind == "text":
            state.content.append({"type": "text", "text": "".join(state.pieces)})
        elif state.kind == "thinking":
            delta = {"type": "signature_delta", "signature": SIGNATURE}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
            thought = "".join(state.pieces)
            block = {"type": "thinking", "thinking": thought, "signature": SIGNATURE}
            state.content.append(block)
        elif state.position is not None:
            call = state.calls.pop(state.position)
            call_id, name = state.pieces
            given = read_input("".join(call.arguments))
            state.content.append({"type": "tool_use", "id": call_id, "name": name, "input": given})
            state.position = None
        state.kind = None
        return [*events, {"type": "content_block_stop", "index": index}]


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


def read_input(arguments: str) -> dict[str, Any]:
    """Return a call's arguments as an object; text that is none stays, under a name of its own.

    A call that was cut short by the token limit is such a text.
    """
    try:
        value = loads(arguments or "{}")
        dumps(value)  # What is nested too deeply could be read, but not sent.
    except (JSONDecodeError, TypeError):
        return {"unparsed_arguments": arguments}
    return value if isinstance(value, dict) else {"unparsed_arguments": arguments}


def _is_whole(arguments: str) -> bool:
    try:
        loads(arguments or "{}")
    except JSONDecodeError:
        return False
    return True
