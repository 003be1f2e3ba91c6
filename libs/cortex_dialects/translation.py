"""One answer on its way from a node, which speaks chat completions, to a client that does not.

An `EventWriter` turns what the completion says into events of the client's dialect; everything
around it is the same for every dialect and stands here. An unstreamed answer is the fold of the
very events that a stream would have carried.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from cortex_dialects.completion_events import (
    CompletionEvent,
    CompletionReader,
    Failed,
    Finished,
    UsageReported,
    read_answer,
)
from cortex_dialects.failure import Failure
from cortex_dialects.sse import frame_of
from cortex_dialects.usage import Usage


class EventWriter(Protocol):
    """Makes a dialect's events of what a completion says. Each has its name in `type`.

    It is asked in this order: `open` once, `take` for each event, then `close` or `fail` once.
    """

    def open(self) -> list[dict[str, Any]]:
        """Return what comes before anything of the answer is known."""
        ...

    def take(self, event: CompletionEvent) -> list[dict[str, Any]]:
        """Return what an event becomes. `Failed` never comes here."""
        ...

    def close(self) -> list[dict[str, Any]]:
        """Return the end of an answer that came whole."""
        ...

    def fail(self, failure: Failure) -> list[dict[str, Any]]:
        """Return the end of an answer that did not."""
        ...

    def answer(self) -> dict[str, Any]:
        """Return the whole answer, once closed: the fold of all events."""
        ...


class TranslatedStream:
    """A node's stream, translated as it comes. What it carried can be read off afterwards."""

    def __init__(self, writer: EventWriter, *, keep_alive: bytes) -> None:
        self.keep_alive = keep_alive
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.first_token_seen = False
        self.failure: dict[str, Any] | None = None
        self._writer = writer
        self._reader = CompletionReader()
        self._opened = False
        self._ended = False

    @property
    def done(self) -> bool:
        """The node said that this was all ([DONE])."""
        return self._reader.done

    @property
    def complete(self) -> bool:
        """The stream came to a proper end."""
        return self.failure is None and self.finish_reason is not None

    def open(self) -> bytes:
        """Return what the client gets first; nothing when it has it."""
        if self._opened:
            return b""
        self._opened = True
        return _encode(self._writer.open())

    def feed(self, chunk: bytes) -> bytes:
        """Return what `chunk` becomes. Raises FrameTooLarge."""
        return self._take(self._reader.feed(chunk))

    def finish(self) -> bytes:
        """Return the end of the client's stream, nothing when the node's was cut short."""
        out = self._take(self._reader.finish())
        if not self.complete or self._ended:
            return out
        self._ended = True
        return out + self.open() + _encode(self._writer.close())

    def fail(self, failure: Failure) -> bytes:
        """Return the end of a stream that failed; nothing when it has ended."""
        if self._ended:
            return b""
        self._ended = True
        return self.open() + _encode(self._writer.fail(failure))

    def _take(self, events: Iterable[CompletionEvent]) -> bytes:
        out = b""
        for event in events:
            if self._ended:
                break
            match event:
                case Failed(error):
                    self.failure = error
                    return out + self.fail(Failure.parse(error))
                case Finished(reason):
                    self.finish_reason = reason
                case UsageReported(usage):
                    self.usage = usage
                case _:
                    self.first_token_seen = True
            if not self._opened:
                out += self.open()
            out += _encode(self._writer.take(event))
        return out


def translate_answer(answer: Any, writer: EventWriter) -> dict[str, Any] | None:
    """Return a whole chat completion in the writer's dialect, None when it is not whole."""
    events = read_answer(answer) if isinstance(answer, dict) else []
    if not any(isinstance(event, Finished) for event in events):
        return None
    writer.open()
    for event in events:
        if isinstance(event, Failed):
            return None
        writer.take(event)
    writer.close()
    return writer.answer()


def _encode(events: list[dict[str, Any]]) -> bytes:
    return b"".join([frame_of(event, event["type"]) for event in events])
