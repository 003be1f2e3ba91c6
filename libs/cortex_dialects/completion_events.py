"""What a chat completion says, as events: the same for a stream's chunks and for a whole answer.

Translators to other dialects take these and nothing else, so both ways of answering carry the same
things. Only the first choice is read: the dialects translated to have one answer a request.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from cortex_dialects.sse import FrameSplitter, json_payload, payload
from cortex_dialects.usage import Usage


class TextDelta(NamedTuple):
    """More of the answer's text."""

    text: str


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


class CompletionReader:
    """Reads a stream of chat completion chunks, however its bytes were cut.

    After the end: `done` ([DONE] was seen). A stream that ends without `Finished` was cut short.
    """

    def __init__(self) -> None:
        self.done = False
        self._frames = FrameSplitter()

    def feed(self, chunk: bytes) -> Iterator[CompletionEvent]:
        """Yield the events that `chunk` completes. Raises FrameTooLarge."""
        for frame in self._frames.feed(chunk):
            yield from self._frame(frame)

    def finish(self) -> Iterator[CompletionEvent]:
        """Yield what a last frame without its blank line says."""
        yield from self._frame(self._frames.finish())

    def _frame(self, frame: bytes) -> Iterator[CompletionEvent]:
        value = json_payload(frame)
        if value is not None:
            yield from read_chunk(value)
        elif payload(frame) == b"[DONE]":
            self.done = True


def read_chunk(value: dict[str, Any]) -> Iterator[CompletionEvent]:
    """Yield what one chunk of a stream says."""
    choices = value.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and not choice.get("index"):
                yield from _message(choice.get("delta"))
                yield from _finished(choice)
    yield from _closing(value)


def read_answer(value: dict[str, Any]) -> Iterator[CompletionEvent]:
    """Yield what a whole answer says."""
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        yield from _message(choices[0].get("message"))
        yield from _finished(choices[0])
    yield from _closing(value)


def _message(delta: object) -> Iterator[CompletionEvent]:
    if not isinstance(delta, dict):
        return
    if text := _text(delta.get("reasoning_content")) or _text(delta.get("reasoning")):
        yield ReasoningDelta(text)
    if text := _text(delta.get("content")) or _text(delta.get("refusal")):
        yield TextDelta(text)
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        for position, call in enumerate(calls):
            if isinstance(call, dict):
                yield _tool_call(call, position)


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


def _finished(choice: dict[str, Any]) -> Iterator[CompletionEvent]:
    if isinstance(reason := choice.get("finish_reason"), str):
        stop = choice.get("stop_reason")
        yield Finished(reason, stop if isinstance(stop, str) else None)


def _closing(value: dict[str, Any]) -> Iterator[CompletionEvent]:
    if (usage := Usage.parse(value.get("usage"))) is not None:
        yield UsageReported(usage)
    if isinstance(error := value.get("error"), dict):
        yield Failed(error)
    elif isinstance(error, str):
        yield Failed({"message": error})


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
