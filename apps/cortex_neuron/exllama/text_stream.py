"""An answer's tokens as text to be shown at once: never half a character, never a stop string.

1. Bytes that may still become a character wait for the rest of it; where the rest never comes, at
   the answer's end, they are nothing, and in its middle they are U+FFFD.
2. Text that may still become a stop string waits. The string that is complete first ends the
   answer, the longest where several are; it and all behind it is not shown.
3. A token's log probability comes with the first of the token's text.

However an answer is cut into tokens, its text is the same.
"""

from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

from cortex_neuron.exllama.jobs import TokenLogprob
from cortex_neuron.exllama.vocabulary import Vocabulary

_UTF_8 = getincrementaldecoder("utf-8")


class TokenRow(NamedTuple):
    """A token that was shown, where in the answer it begins (in characters), and its odds."""

    token: int
    offset: int
    logprob: TokenLogprob


class Piece(NamedTuple):
    """What can be shown now; both may be empty."""

    text: str
    rows: tuple[TokenRow, ...] = ()


class TextStream:
    """One answer. `stopped_by` is the stop string that ended it; nothing is shown behind.

    `hidden` are the tokens that are no text (the stop tokens do not even come here).
    """

    def __init__(
        self, vocabulary: Vocabulary, *, stops: Sequence[str] = (), hidden: Collection[int] = ()
    ) -> None:
        self.stopped_by: str | None = None
        self._vocabulary = vocabulary
        self._hidden = hidden
        self._decoder = _UTF_8("replace")
        self._search = _StopSearch(stops) if stops else None
        self._shown = 0
        self._held = ""
        self._rows: deque[TokenRow] = deque()

    def feed(self, token: int, logprob: TokenLogprob | None = None) -> Piece:
        """Return what `token` lets be shown."""
        if self.stopped_by is not None:
            return Piece("")
        if logprob is not None:
            self._rows.append(TokenRow(token, self._shown + len(self._held), logprob))
        if token in self._hidden:
            return Piece("")
        return self._add(self._decoder.decode(self._vocabulary.piece(token)))

    def finish(self) -> Piece:
        """Return what was held back: there is no more to come."""
        if self.stopped_by is not None:
            return Piece("")
        text, self._held = self._held, ""
        rows = tuple(self._rows)
        self._rows.clear()
        self._shown += len(text)
        return Piece(text, rows)

    def _add(self, text: str) -> Piece:
        before = len(self._held)
        self._held += text
        if self._search is None:
            return self._show(len(self._held))
        if (found := self._search.feed(text)) is None:
            return self._show(len(self._held) - self._search.begun)
        end, self.stopped_by = found
        return self._show(before + end - len(self.stopped_by))

    def _show(self, size: int) -> Piece:
        """Show as much of what is held, and the tokens that begin in it."""
        text, self._held = self._held[:size], self._held[size:]
        self._shown += size
        rows: list[TokenRow] = []
        while self._rows and self._rows[0].offset < self._shown:
            rows.append(self._rows.popleft())
        return Piece(text, tuple(rows))


class _StopSearch:
    """Finds any of some strings, a character at a time (Knuth, Morris and Pratt's way)."""

    def __init__(self, stops: Sequence[str]) -> None:
        # The longest first: of several that are complete at once it is the one.
        self._stops = sorted(set(stops), key=len, reverse=True)
        self._borders = [_borders(stop) for stop in self._stops]
        self._matched = [0] * len(self._stops)

    @property
    def begun(self) -> int:
        """How many of the last characters may still become a stop string."""
        return max(self._matched)

    def feed(self, text: str) -> tuple[int, str] | None:
        """Return the stop string that is complete first, and how far `text` goes with it."""
        for end, character in enumerate(text, 1):
            done: str | None = None
            for number, stop in enumerate(self._stops):
                size = self._matched[number]
                while size and stop[size] != character:
                    size = self._borders[number][size - 1]
                size += stop[size] == character
                self._matched[number] = size
                if size == len(stop):
                    done = done or stop
                    self._matched[number] = self._borders[number][size - 1]
            if done is not None:
                return end, done
        return None


def _borders(text: str) -> list[int]:
    """Return for each beginning of `text` its longest proper border: what is both its ends."""
    borders = [0] * len(text)
    size = 0
    for at in range(1, len(text)):
        while size and text[size] != text[at]:
            size = borders[size - 1]
        size += text[size] == text[at]
        borders[at] = size
    return borders
