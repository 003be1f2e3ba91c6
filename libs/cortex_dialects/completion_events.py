"""What a chat completion says, as events: the same for a stream's chunks and for a whole answer.

Translators to other dialects take these and nothing else, so both ways of answering carry the same
things. Only the first choice is read: the dialects translated to have one answer a request.
"""

from typing import Any, Final, NamedTuple, TypeAlias

from cortex_dialects.sse import FrameSplitter, json_payload, payload
from cortex_dialects.usage import Usage


class TextDelta(NamedTuple):
    """More of the answer's text, and of its tokens' log probabilities where they were asked for."""

    text: str
    logprobs: tuple[dict[str, Any], ...] = ()


class ReasoningDelta(NamedTuple):
    """More of the model's thoughts."""

    text: str


class ToolCallDelta(NamedTuple):
    """A tool call begins (`name` is set) or goes on, `position` among the calls of its answer.

    `arguments` is a piece of JSON text.
    """

    position: int
    id: str | None
    name: str | None
    arguments: str


class Finished(NamedTuple):
    """The model stopped: `stop`, `length`, `tool_calls`, `content_filter`, or an engine's own word.

    `stop_sequence` is the stop string that ended it, where the engine tells.
    """

    reason: str
    stop_sequence: str | None = None


class UsageReported(NamedTuple):
    """Token counts; the last report holds."""

    usage: Usage


class Failed(NamedTuple):
    """The stream carried an error object: nothing follows."""

    error: dict[str, Any]


CompletionEvent: TypeAlias = (
    TextDelta | ReasoningDelta | ToolCallDelta | Finished | UsageReported | Failed
)


_UNREADABLE: Final = Failed(
    {
        "message": "a part of the engine's answer could not be read",
        "type": "api_error",
        "code": "upstream_malformed_response",
    }
)


#: What some engines call an answer that they could not finish.
_GAVE_UP: Final = frozenset({"abort", "error"})


class CompletionReader:
    """Reads a stream of chat completion chunks, however its bytes were cut.

    After the end: `done` ([DONE] was seen). A stream that ends without `Finished` was cut short. A
    frame that cannot be read fails it: nobody knows what of the answer it held.
    """

    def __init__(self) -> None:
        self.done = False
        self._frames = FrameSplitter()

    def feed(self, chunk: bytes) -> list[CompletionEvent]:
        """Return the events that `chunk` completes. Raises FrameTooLarge."""
        frames = self._frames.feed(chunk)
        if len(frames) == 1:
            return self._frame(frames[0])
        return [event for frame in frames for event in self._frame(frame)]

    def finish(self) -> list[CompletionEvent]:
        """Return what a last frame without its blank line says; half a frame says nothing."""
        last = self._frame(self._frames.finish())
        return [] if last == [_UNREADABLE] else last

    def _frame(self, frame: bytes) -> list[CompletionEvent]:
        value = json_payload(frame)
        if value is not None:
            return read_chunk(value)
        said = payload(frame)
        if said == b"[DONE]":
            self.done = True
            said = b""
        return [_UNREADABLE] if said else []


def read_chunk(value: dict[str, Any]) -> list[CompletionEvent]:
    """Return what one chunk of a stream says."""
    events: list[CompletionEvent] = []
    choices = value.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and not choice.get("index"):
                _read_message(choice.get("delta"), choice, events)
                _read_finish(choice, events)
    if "usage" in value or "error" in value:
        _read_closing(value, events)
    return events


def read_answer(value: dict[str, Any]) -> list[CompletionEvent]:
    """Return what a whole answer says."""
    events: list[CompletionEvent] = []
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        _read_message(choices[0].get("message"), choices[0], events)
        _read_finish(choices[0], events)
    _read_closing(value, events)
    return events


def _read_message(message: object, choice: dict[str, Any], events: list[CompletionEvent]) -> None:
    if not isinstance(message, dict):
        return
    if text := _text(message.get("content")) or _text(message.get("refusal")):
        logprobs = choice.get("logprobs")
        events.append(TextDelta(text, _logprobs(logprobs) if logprobs else ()))
    if text := _text(message.get("reasoning_content")) or _text(message.get("reasoning")):
        events.insert(0, ReasoningDelta(text))  # Thoughts come before what they led to.
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        events.extend(
            _tool_call(call, position)
            for position, call in enumerate(calls)
            if isinstance(call, dict)
        )


def _logprobs(value: object) -> tuple[dict[str, Any], ...]:
    content = value.get("content") if isinstance(value, dict) else None
    rows = content if isinstance(content, list) else []
    return tuple(row for row in rows if isinstance(row, dict))


def _tool_call(call: dict[str, Any], position: int) -> ToolCallDelta:
    function = call.get("function")
    said = function if isinstance(function, dict) else {}
    index = call.get("index")
    return ToolCallDelta(
        position=index if isinstance(index, int) else position,
        id=_text(call.get("id")) or None,
        name=_text(said.get("name")) or None,
        arguments=_text(said.get("arguments")),
    )


def _read_finish(choice: dict[str, Any], events: list[CompletionEvent]) -> None:
    if isinstance(reason := choice.get("finish_reason"), str):
        if reason in _GAVE_UP:
            events.append(Failed({"message": "the engine gave up on this answer"}))
            return
        stop = choice.get("stop_reason")
        events.append(Finished(reason, stop if isinstance(stop, str) else None))


def _read_closing(value: dict[str, Any], events: list[CompletionEvent]) -> None:
    if (usage := Usage.parse(value.get("usage"))) is not None:
        events.append(UsageReported(usage))
    if isinstance(error := value.get("error"), dict):
        events.append(Failed(error))
    elif isinstance(error, str):
        events.append(Failed({"message": error}))


def _text(value: object) -> str:
    """Return text as it is; content in parts by its text parts; anything else as none."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(
            part["text"]
            for part in value
            if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""
