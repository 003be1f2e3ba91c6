"""One answer of a chat as the frames of its stream: thoughts, calls and text apart.

A whole answer is the fold of these frames. Log probabilities are told of the text alone: what a
model thinks, and the markup of its calls, is not what a client reads.
"""

from collections import deque
from typing import Any

from cortex_dialects import frame_of
from cortex_dialects.completion_events import ReasoningDelta, TextDelta, ToolCallDelta
from cortex_dialects.splitting import AnswerEvent, AnswerSplitter
from cortex_neuron.exllama.logprobs import chat_logprobs
from cortex_neuron.exllama.text_stream import Piece, TokenRow
from cortex_neuron.exllama.vocabulary import Vocabulary


class ChatWriter:
    """Writes one choice. `head` is what all frames of its answer begin with.

    `enough` turns true when nothing more is wanted: one call was made, and `one_call` says that it
    shall be the only one. What still comes is left out. `reasoning_tokens` counts the tokens up to
    the last thought, where `say` is called once a token.
    """

    def __init__(
        self,
        head: dict[str, Any],
        index: int,
        vocabulary: Vocabulary,
        splitter: AnswerSplitter,
        *,
        one_call: bool = False,
    ) -> None:
        self.enough = False
        self.reasoning_tokens = 0
        self._head = head
        self._index = index
        self._vocabulary = vocabulary
        self._splitter = splitter
        self._one_call = one_call
        self._rows = _Rows()
        self._said = 0
        self._in_text = False

    def open(self) -> bytes:
        """Return the frame that says who speaks."""
        return self._frame({"role": "assistant", "content": ""})

    def say(self, piece: Piece) -> bytes:
        """Return what a piece of the answer becomes: any number of frames."""
        if self.enough:
            return b""
        self._said += 1
        self._rows.add(piece)
        return self._write(self._splitter.feed(piece.text)) if piece.text else b""

    def close(self, *, cut: bool, stopped_by: str | None) -> bytes:
        """Return the end. `cut`: it was not over; `stopped_by` is the stop string that ended it."""
        rest = b"" if self.enough else self._write(self._splitter.finish())
        called = self._splitter.called_tools and (self.enough or not cut)
        reason = "tool_calls" if called else "length" if cut else "stop"
        end: dict[str, Any] = {"finish_reason": reason}
        if self._in_text and (left := self._rows.left()):
            end["logprobs"] = self._logprobs(left)  # Of what never became a character.
        if stopped_by is not None:
            end["stop_reason"] = stopped_by
        return rest + self._frame({}, **end)

    def _write(self, events: list[AnswerEvent]) -> bytes:
        frames: list[bytes] = []
        for event in events:
            match event:
                case TextDelta(""):
                    continue
                case ReasoningDelta(text):
                    self._in_text = False
                    self._rows.take(text)
                    self.reasoning_tokens = self._said
                    frames.append(self._frame({"reasoning_content": text}))
                case TextDelta(text):
                    self._in_text = True
                    rows = self._rows.take(text)
                    odds = {"logprobs": self._logprobs(rows)} if rows else {}
                    frames.append(self._frame({"content": text}, **odds))
                case ToolCallDelta():
                    self._in_text = False
                    self._rows.clear()
                    frames.append(self._frame({"tool_calls": [_call(event)]}))
                    if self._one_call:
                        self.enough = True
                        break
        return b"".join(frames)

    def _logprobs(self, rows: list[TokenRow]) -> dict[str, Any]:
        return {"content": chat_logprobs(rows, self._vocabulary)}

    def _frame(self, delta: dict[str, Any], **choice: Any) -> bytes:
        row = {"index": self._index, "delta": delta, "finish_reason": None, **choice}
        return frame_of({**self._head, "choices": [row]})


def _call(event: ToolCallDelta) -> dict[str, Any]:
    return {
        "index": event.position,
        "id": event.id,
        "type": "function",
        "function": {"name": event.name, "arguments": event.arguments},
    }


class _Rows:
    """The tokens of text that was not told yet, to be told with the text that they begin in."""

    def __init__(self) -> None:
        self._text = ""
        self._begins = 0  # Where in the answer `_text` begins.
        self._rows: deque[TokenRow] = deque()

    def add(self, piece: Piece) -> None:
        if piece.rows or self._rows:
            self._rows += piece.rows
            self._text += piece.text
        else:
            self._begins += len(self._text) + len(piece.text)
            self._text = ""

    def take(self, text: str) -> list[TokenRow]:
        """Return the tokens that begin in `text`, which comes next but for what is no text."""
        if not self._rows or (at := self._text.find(text)) < 0:
            return []
        start, end = self._begins + at, self._begins + at + len(text)
        taken: list[TokenRow] = []
        while self._rows and self._rows[0].offset < end:
            row = self._rows.popleft()
            if row.offset >= start:
                taken.append(row)
        self._text = self._text[at + len(text) :]
        self._begins = end
        return taken

    def left(self) -> list[TokenRow]:
        """Return the tokens that no text came of."""
        return list(self._rows)

    def clear(self) -> None:
        """Forget what was in a call."""
        self._begins += len(self._text)
        self._text = ""
        self._rows.clear()
