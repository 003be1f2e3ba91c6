"""A text completion as the frames of its stream."""

from typing import Any

from cortex_dialects import frame_of
from cortex_neuron.exllama.logprobs import text_logprobs
from cortex_neuron.exllama.text_stream import Piece
from cortex_neuron.exllama.vocabulary import Vocabulary


class TextWriter:
    """Writes one choice. `head` is what all frames of its answer begin with."""

    def __init__(
        self, head: dict[str, Any], index: int, vocabulary: Vocabulary, *, logprobs: bool
    ) -> None:
        self.enough = False
        self.reasoning_tokens = 0
        self._head = head
        self._index = index
        self._vocabulary = vocabulary
        self._logprobs = logprobs

    def open(self) -> bytes:
        """Return nothing: text begins with text."""
        return b""

    def say(self, piece: Piece) -> bytes:
        """Return a piece as a frame."""
        return self._frame(piece) if piece.text or piece.rows else b""

    def close(self, *, cut: bool, stopped_by: str | None) -> bytes:
        """Return the frame that says why it ended."""
        reason = "length" if cut else "stop"
        stop = {} if stopped_by is None else {"stop_reason": stopped_by}
        return self._frame(Piece(""), finish_reason=reason, **stop)

    def _frame(self, piece: Piece, **end: Any) -> bytes:
        known = self._logprobs and piece.rows
        row = {
            "index": self._index,
            "text": piece.text,
            "logprobs": text_logprobs(piece.rows, self._vocabulary) if known else None,
            "finish_reason": None,
            **end,
        }
        return frame_of({**self._head, "choices": [row]})
