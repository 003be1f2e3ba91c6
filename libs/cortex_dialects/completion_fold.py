"""An unstreamed answer is the fold of the streamed one, so both carry the same things."""

from typing import Any

from cortex_dialects.completion_stream import CompletionStream, UsageChunk
from cortex_dialects.sse import FrameSplitter, json_payload

_TEXT_FIELDS = ("content", "reasoning_content", "refusal")


class CompletionFold:
    """Collects the chunks of a chat or text completion stream into one answer."""

    def __init__(self) -> None:
        self.stream = CompletionStream(UsageChunk.PASS)
        self._frames = FrameSplitter()
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}
        self._extra: dict[str, Any] = {}

    def feed(self, chunk: bytes) -> None:
        """Take in some bytes of the stream."""
        self.stream.feed(chunk)
        for frame in self._frames.feed(chunk):
            if (value := json_payload(frame)) is not None:
                self._chunk(value)

    def answer(self) -> dict[str, Any]:
        """Return the whole answer, in the shape of `/v1/chat/completions` or `/v1/completions`."""
        kind = "chat.completion" if self._is_chat() else "text_completion"
        choices = [_complete(self._choices[index]) for index in sorted(self._choices)]
        body: dict[str, Any] = {**self._head, "object": kind, "choices": choices, **self._extra}
        if self.stream.usage is not None:
            body["usage"] = self.stream.usage.as_json()
        return body

    def _is_chat(self) -> bool:
        return str(self._head.get("object", "")).startswith("chat")

    def _chunk(self, value: dict[str, Any]) -> None:
        for key in ("id", "object", "created", "model", "system_fingerprint"):
            if key in value:
                self._head.setdefault(key, value[key])
        if "timings" in value:
            self._extra["timings"] = value["timings"]
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, dict):
                self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> None:
        index = choice.get("index") or 0
        delta = choice.get("delta")
        if index not in self._choices:
            empty = {"message": {"role": "assistant", "content": None}}
            text = {"text": ""}
            self._choices[index] = {
                "index": index,
                **(empty if isinstance(delta, dict) else text),
                "logprobs": None,
                "finish_reason": None,
            }
        whole = self._choices[index]
        if isinstance(delta, dict):
            _add_delta(whole["message"], delta)
        else:
            whole["text"] = whole.get("text", "") + (choice.get("text") or "")
        whole["finish_reason"] = choice.get("finish_reason") or whole["finish_reason"]
        if choice.get("stop_reason") is not None:
            whole["stop_reason"] = choice["stop_reason"]
        if isinstance(logprobs := choice.get("logprobs"), dict):
            whole["logprobs"] = _add_lists(whole["logprobs"] or {}, logprobs)


def _complete(choice: dict[str, Any]) -> dict[str, Any]:
    """Return the choice with text even where none came: content is null beside tool calls only.

    Few tokens can be no text at all (half of an emoji), and clients call string methods on it.
    """
    message = choice.get("message")
    if isinstance(message, dict) and message["content"] is None and "tool_calls" not in message:
        return {**choice, "message": {**message, "content": ""}}
    return choice


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    if isinstance(role := delta.get("role"), str):
        message["role"] = role
    for field in _TEXT_FIELDS:
        if isinstance(text := delta.get(field), str):
            message[field] = (message.get(field) or "") + text
    calls = delta.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        if isinstance(call, dict):
            _add_tool_call(message.setdefault("tool_calls", []), call)


def _add_tool_call(calls: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    index = delta.get("index")
    position = index if isinstance(index, int) and 0 <= index <= len(calls) else len(calls)
    if position == len(calls):
        calls.append({"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
    call = calls[position]
    if delta.get("id"):
        call["id"] = delta["id"]
    function = delta.get("function")
    if isinstance(function, dict):
        for field in ("name", "arguments"):
            if isinstance(text := function.get(field), str):
                call["function"][field] += text


def _add_lists(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Join the lists of two logprobs objects field by field."""
    joined = dict(whole)
    for key, value in part.items():
        before = joined.get(key)
        both = isinstance(before, list) and isinstance(value, list)
        joined[key] = [*before, *value] if both else value  # type: ignore[misc]
    return joined
