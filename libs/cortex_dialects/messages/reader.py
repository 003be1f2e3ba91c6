"""An Anthropic message, whole or streamed, as completion events: the way back of `writer`."""

from collections.abc import Iterator
from typing import Any

from orjson import dumps

from cortex_dialects.completion_events import (
    CompletionEvent,
    Failed,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from cortex_dialects.sse import FrameSplitter, json_payload
from cortex_dialects.usage import Usage

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class MessageReader:
    """Reads the events of a message stream, however its bytes were cut.

    After the end: `done` (`message_stop` was seen).
    """

    def __init__(self) -> None:
        self.done = False
        self._frames = FrameSplitter()
        self._calls: dict[int, int] = {}
        self._usage: dict[str, Any] = {}

    def feed(self, chunk: bytes) -> Iterator[CompletionEvent]:
        """Yield the events that `chunk` completes. Raises FrameTooLarge."""
        for frame in self._frames.feed(chunk):
            if (value := json_payload(frame)) is not None:
                yield from self.read(value)

    def finish(self) -> Iterator[CompletionEvent]:
        """Yield what a last frame without its blank line says."""
        if (value := json_payload(self._frames.finish())) is not None:
            yield from self.read(value)

    def read(self, event: dict[str, Any]) -> Iterator[CompletionEvent]:
        """Yield what one event says. Kinds that are not known say nothing."""
        match event:
            case {"type": "message_start", "message": {"usage": dict(usage)}}:
                self._usage.update(usage)
            case {"type": "content_block_start", "index": int(index), "content_block": dict(block)}:
                yield from self._block(index, block)
            case {"type": "content_block_delta", "index": int(index), "delta": dict(delta)}:
                yield from self._delta(index, delta)
            case {"type": "message_delta", "delta": dict(delta)}:
                yield from self._end(delta, event.get("usage"))
            case {"type": "message_stop"}:
                self.done = True
            case {"type": "error", "error": dict(error)}:
                yield Failed(error)
            case _:
                pass

    def _block(self, index: int, block: dict[str, Any]) -> Iterator[CompletionEvent]:
        match block:
            case {"type": "tool_use", "id": str(call), "name": str(name)}:
                position = self._calls[index] = len(self._calls)
                yield ToolCallDelta(position, call, name, "")
            case {"type": "text", "text": str(text)} if text:
                yield TextDelta(text)
            case {"type": "thinking", "thinking": str(text)} if text:
                yield ReasoningDelta(text)
            case _:
                pass

    def _delta(self, index: int, delta: dict[str, Any]) -> Iterator[CompletionEvent]:
        match delta:
            case {"type": "text_delta", "text": str(text)}:
                yield TextDelta(text)
            case {"type": "thinking_delta", "thinking": str(text)}:
                yield ReasoningDelta(text)
            case {"type": "input_json_delta", "partial_json": str(text)} if index in self._calls:
                yield ToolCallDelta(self._calls[index], None, None, text)
            case _:
                pass

    def _end(self, delta: dict[str, Any], usage: object) -> Iterator[CompletionEvent]:
        if isinstance(reason := delta.get("stop_reason"), str):
            stop = delta.get("stop_sequence")
            yield Finished(
                _FINISH_REASONS.get(reason, reason), stop if isinstance(stop, str) else None
            )
        if isinstance(usage, dict):
            self._usage.update({k: v for k, v in usage.items() if v is not None})
        if self._usage:
            yield UsageReported(parse_usage(self._usage))


def read_message(message: dict[str, Any]) -> Iterator[CompletionEvent]:
    """Yield what a whole message says."""
    reader = MessageReader()
    content = message.get("content")
    for index, block in enumerate(content if isinstance(content, list) else []):
        if isinstance(block, dict):
            start = {"type": "content_block_start", "index": index, "content_block": block}
            yield from reader.read(start)
            if block.get("type") == "tool_use":
                text = dumps(block.get("input") or {}).decode()
                delta = {"type": "input_json_delta", "partial_json": text}
                yield from reader.read(
                    {"type": "content_block_delta", "index": index, "delta": delta}
                )
    ending = {k: message.get(k) for k in ("stop_reason", "stop_sequence")}
    yield from reader.read(
        {"type": "message_delta", "delta": ending, "usage": message.get("usage")}
    )


def parse_usage(usage: dict[str, Any]) -> Usage:
    """Return Anthropic's counts: its `input_tokens` leave out what the cache had or was given."""
    read = _count(usage, "cache_read_input_tokens")
    created = _count(usage, "cache_creation_input_tokens")
    return Usage(
        prompt=_count(usage, "input_tokens") + read + created,
        completion=_count(usage, "output_tokens"),
        cached=read,
    )


def _count(usage: dict[str, Any], name: str) -> int:
    value = usage.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return 0
