"""An answer's text is the same however it is cut, and ends where a stop string begins."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cortex_neuron.exllama.jobs import TokenLogprob
from cortex_neuron.exllama.text_stream import Piece, TextStream
from tests.apps.cortex_neuron.exllama.vocabularies import bytes_vocabulary, pieces_vocabulary

VOCABULARY = bytes_vocabulary()
SINGLE = {VOCABULARY.piece(token): token for token in range(VOCABULARY.size)}
ODDS = TokenLogprob(-0.5)
words = st.lists(
    st.sampled_from(["a", "b", "ab", "abc", "the ", "stop", "é", "😀", "\n", "<|im_start|>"])
).map("".join)
stop_lists = st.lists(
    st.sampled_from(["ab", "abab", "b", "bca", "stop", "opst", "é", "😀", "aab", "\na"]), max_size=3
)
cuts = st.lists(st.integers(0, 80), max_size=10)


def tokens_of(text: str, at: Iterable[int] = ()) -> list[int]:
    """Tokens of the text, cut between any of its bytes first; half characters byte by byte."""
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in at), len(data)]
    tokens: list[int] = []
    for start, end in pairwise(edges):
        try:
            tokens += VOCABULARY.encode_chat(data[start:end].decode())
        except UnicodeDecodeError:
            tokens += [SINGLE[bytes([byte])] for byte in data[start:end]]
    return tokens


def read(
    tokens: Iterable[int], stops: Sequence[str] = (), hidden: Sequence[int] = ()
) -> tuple[TextStream, list[Piece]]:
    """All that a stream shows of these tokens."""
    stream = TextStream(VOCABULARY, stops=stops, hidden=hidden)
    pieces = [stream.feed(token, ODDS) for token in tokens]
    return stream, [*pieces, stream.finish()]


def shown(pieces: Iterable[Piece]) -> str:
    """The text of the pieces."""
    return "".join(piece.text for piece in pieces)


def cut_at_stop(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
    """What is left of a text, by the rule word for word."""
    for end in range(len(text) + 1):
        if done := sorted((one for one in stops if text[:end].endswith(one)), key=len):
            return text[: end - len(done[-1])], done[-1]
    return text, None


@given(words, cuts, stop_lists)
def test_an_answer_is_the_same_however_it_is_cut(
    text: str, at: list[int], stops: list[str]
) -> None:
    """Between any of its bytes, with any stop strings, also those that overlap."""
    stream, pieces = read(tokens_of(text, at), stops)

    assert (shown(pieces), stream.stopped_by) == cut_at_stop(text, stops)


@given(words, cuts, stop_lists)
def test_what_was_shown_is_never_taken_back(text: str, at: list[int], stops: list[str]) -> None:
    """At no time is more shown than what is left in the end, and never half a character."""
    _, pieces = read(tokens_of(text, at), stops)
    left, _ = cut_at_stop(text, stops)

    assert all(left.startswith(shown(pieces[:end])) for end in range(len(pieces)))


@given(words, cuts, stop_lists)
def test_log_probabilities_come_with_their_text(text: str, at: list[int], stops: list[str]) -> None:
    """Every token that begins in what is shown has its row, once, in order; no other has."""
    tokens = tokens_of(text, at)
    stream, pieces = read(tokens, stops)
    rows = [row for piece in pieces for row in piece.rows]

    assert [row.token for row in rows] == tokens[: len(rows)]
    assert [row.offset for row in rows] == sorted(row.offset for row in rows)
    size = 0
    for piece in pieces[:-1]:
        size += len(piece.text)
        assert all(row.offset < size for row in piece.rows)
    if stream.stopped_by is None:
        assert len(rows) == len(tokens)
    else:
        assert all(row.offset < size for row in rows)


def test_text_that_can_be_no_stop_string_does_not_wait() -> None:
    """Only the beginning of one does."""
    stream = TextStream(VOCABULARY, stops=["stopped"])
    texts = [stream.feed(token).text for token in tokens_of("a stop b", range(9))]

    assert texts == ["a", " ", "", "", "", "", "stop ", "b"]


def test_the_first_that_is_complete_ends_the_answer() -> None:
    """A longer one that began earlier may still have come: nobody can wait for it."""
    stream, pieces = read(tokens_of("xabcd"), ["abcd", "bc"])

    assert (shown(pieces), stream.stopped_by) == ("xa", "bc")


def test_nothing_comes_behind_a_stop_string() -> None:
    """Tokens that the engine had under way already are no part of the answer."""
    stream, _ = read(tokens_of("a stop"), ["stop"])

    assert stream.feed(tokens_of("b")[0], ODDS) == Piece("")
    assert stream.finish() == Piece("")


def test_half_a_character_is_nothing_at_the_end() -> None:
    """An answer that was cut by its limit has no broken character there."""
    stream, pieces = read(tokens_of("a😀", range(9))[:-1])

    assert shown(pieces) == "a"
    assert stream.stopped_by is None
    assert len([row for piece in pieces for row in piece.rows]) == 4


def test_bytes_that_are_no_text_are_replaced() -> None:
    """A model may write them; the text around them stays."""
    _, pieces = read([*tokens_of("a"), SINGLE[b"\xf0"], SINGLE[b"\xff"], *tokens_of("b")])

    assert shown(pieces) == "a\ufffd\ufffdb"


def test_special_tokens_are_no_text() -> None:
    """Unless somebody wants to see them, or reads them as markers."""
    tokens = tokens_of("a[TOOL_CALLS]<|im_start|>b")
    marker, start = tokens[1], tokens[2]

    assert shown(read(tokens, hidden=[start])[1]) == "a[TOOL_CALLS]b"
    assert shown(read(tokens, hidden=[start, marker])[1]) == "ab"


def test_sentencepiece_keeps_its_spaces() -> None:
    """The space that begins a continuation belongs to it."""
    vocabulary = pieces_vocabulary()
    stream = TextStream(vocabulary)
    tokens = vocabulary.encode_chat("hello, w é")

    assert "".join(stream.feed(token).text for token in tokens) == " hello, w é"
