"""One request of a client and how its answer is told, whatever dialect the client speaks.

A gateway reads a request into an `Exchange`, asks a node with `node_body`, and lets the answer pass
through `stream` or `whole`. Bytes of a client that speaks the node's dialect are moved as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from orjson import dumps, loads

from cortex_dialects import messages, responses
from cortex_dialects.completion_stream import CompletionStream, UsageChunk
from cortex_dialects.encoding import encode
from cortex_dialects.failure import Envelope, Failure
from cortex_dialects.front import Front, read_front, with_model
from cortex_dialects.sse import COMMENT_FRAME
from cortex_dialects.translation import EventWriter, TranslatedStream, translate_answer
from cortex_dialects.usage import Usage

CHAT_PATH: Final = "/v1/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What an answer is called: made by whoever has randomness and a clock. `created` is Unix."""

    request_id: str
    answer_id: str
    created: int


class AnswerStream(Protocol):
    """A node's stream on its way to the client; what it carried can be read off afterwards."""

    keep_alive: bytes
    usage: Usage | None
    finish_reason: str | None
    first_token_seen: bool
    failure: dict[str, Any] | None

    @property
    def done(self) -> bool:
        """The node said that this was all ([DONE])."""
        ...

    @property
    def complete(self) -> bool:
        """The stream came to a proper end."""
        ...

    def open(self) -> bytes:
        """Return what the client gets before anything of the answer is there."""
        ...

    def feed(self, chunk: bytes) -> bytes:
        """Return what the node's bytes become. Raises FrameTooLarge."""
        ...

    def finish(self) -> bytes:
        """Return what is left when the node's stream has ended."""
        ...

    def fail(self, failure: Failure) -> bytes:
        """Return the end of a stream that failed."""
        ...


class Passed(NamedTuple):
    """A request in the node's own dialect."""

    raw: bytes
    front: Front
    node_path: str

    def node_body(self, model: str) -> bytes:
        """Return the body as it came; only another model's name is put in."""
        return self.raw if model == self.front.model else with_model(self.raw, self.front, model)

    def stream(self) -> CompletionStream:
        """Return a stream that is read along and passes as it is."""
        wanted = UsageChunk.PASS if self.front.wants_usage else UsageChunk.WITHHOLD
        return CompletionStream(wanted)

    def whole(self, raw: bytes) -> bytes:
        """Return the answer as it came."""
        return raw


@dataclass(frozen=True, slots=True)
class Translated:
    """A request that a node gets as a chat completion."""

    front: Front
    chat: dict[str, Any]
    writer: Callable[[], EventWriter]
    keep_alive: bytes
    node_path: str = CHAT_PATH

    def node_body(self, model: str) -> bytes:
        """Return the chat completion request. Raises BadBody for what cannot be written again."""
        return encode({**self.chat, "model": model})

    def stream(self) -> TranslatedStream:
        """Return a stream that is translated as it comes."""
        return TranslatedStream(self.writer(), keep_alive=self.keep_alive)

    def whole(self, raw: bytes) -> bytes | None:
        """Return the answer in the client's dialect. Raises ValueError when `raw` is not JSON."""
        told = translate_answer(loads(raw), self.writer())
        return None if told is None else dumps(told)


#: One request: what it asks for, what a node gets of it, and what becomes of the answer.
Exchange: TypeAlias = Passed | Translated


def read_passed(raw: bytes, path: str) -> Passed:
    """Return a request in the node's dialect. Raises BadBody."""
    return Passed(raw, read_front(raw), path)


def read_messages(raw: bytes, ticket: Ticket) -> Translated:
    """Return an Anthropic Messages request. Raises BadBody."""
    front = read_front(raw)
    show_thinking = messages.shows_thinking(front.body)
    chat = messages.to_chat(front.body)
    known = {call["id"] for turn in chat["messages"] for call in turn.get("tool_calls", ())}

    def writer() -> EventWriter:
        return messages.MessageWriter(
            message_id=f"msg_{ticket.answer_id}",
            model=front.model,
            request_id=ticket.request_id,
            show_thinking=show_thinking,
            known_calls=known,
        )

    return Translated(front, chat, writer, messages.PING_FRAME)


def read_responses(raw: bytes, ticket: Ticket) -> Translated:
    """Return an OpenAI Responses request. Raises BadBody."""
    front = read_front(raw)

    def writer() -> EventWriter:
        return responses.ResponsesWriter(
            response_id=f"resp_{ticket.answer_id}",
            model=front.model,
            created_at=ticket.created,
            request=front.body,
        )

    return Translated(front, responses.to_chat(front.body), writer, COMMENT_FRAME)


def envelope_of(path: str, headers: Any) -> Envelope:
    """Return whose error bodies the client of a request reads."""
    anthropic = path.startswith("/v1/messages") or "anthropic-version" in headers
    return Envelope.ANTHROPIC if anthropic else Envelope.OPENAI
