"""An answer of a chat as its client reads it, streamed and whole."""

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects import CompletionFold, FrameSplitter, json_payload
from cortex_dialects.splitting import (
    THINK_MARKERS,
    TOOL_DIALECTS,
    AnswerSplitter,
    ReasoningSplitter,
    ToolSplitter,
)
from cortex_neuron.exllama.conversation import ChatWriter
from cortex_neuron.exllama.jobs import TokenLogprob
from cortex_neuron.exllama.text_stream import Piece, TextStream
from tests.apps.cortex_neuron.exllama.vocabularies import bytes_vocabulary

VOCABULARY = bytes_vocabulary()
SINGLE = {VOCABULARY.piece(token): token for token in range(VOCABULARY.size)}
HEAD = {"id": "chat-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
CALL = '<tool_call>\n{"name": "clock", "arguments": {"zone": "UTC"}}\n</tool_call>'
ODDS = TokenLogprob(-0.5, ((5, -0.5),))
answers = st.lists(
    st.sampled_from(
        ["<think>", "</think>", CALL, "<tool_call>", "a", " b", "é", "😀", "\n", "stop"]
    ),
    max_size=8,
).map("".join)
cuts = st.lists(st.integers(0, 200), max_size=12)


def tokens_of(text: str, at: Iterable[int] = ()) -> list[int]:
    """Tokens of the text, cut between any of its bytes first."""
    data = text.encode()
    edges = [0, *sorted(min(cut, len(data)) for cut in at), len(data)]
    tokens: list[int] = []
    for start, end in pairwise(edges):
        try:
            tokens += VOCABULARY.encode_chat(data[start:end].decode())
        except UnicodeDecodeError:
            tokens += [SINGLE[bytes([byte])] for byte in data[start:end]]
    return tokens


def splitter(*, tools: bool = True, thinks: bool = True) -> AnswerSplitter:
    """Takes thoughts and calls of a clock out of an answer."""
    reasoning = ReasoningSplitter(THINK_MARKERS[:1], open=False) if thinks else None
    calls = ToolSplitter(TOOL_DIALECTS["hermes"], {"clock": None}, id_prefix="call_")
    return AnswerSplitter(reasoning, calls if tools else None)


def written(
    tokens: Iterable[int],
    *,
    cut: bool = False,
    stops: tuple[str, ...] = (),
    odds: TokenLogprob | None = None,
    one_call: bool = False,
    split: AnswerSplitter | None = None,
) -> tuple[list[bytes], ChatWriter]:
    """All frames of one answer, as they come."""
    text = TextStream(VOCABULARY, stops=stops)
    writer = ChatWriter(HEAD, 0, VOCABULARY, split or splitter(), one_call=one_call)
    frames = [writer.open()]
    for token in tokens:
        frames.append(writer.say(text.feed(token, odds)))
        if text.stopped_by is not None or writer.enough:
            break
    else:
        frames.append(writer.say(text.finish()))
    ended = text.stopped_by is not None or writer.enough
    frames.append(writer.close(cut=cut and not ended, stopped_by=text.stopped_by))
    return frames, writer


def whole(frames: Iterable[bytes]) -> dict[str, Any]:
    """The only choice of the answer that the frames are."""
    fold = CompletionFold()
    for frame in frames:
        fold.feed(frame)
    choice: dict[str, Any] = fold.answer()["choices"][0]
    return choice


def deltas(frames: Iterable[bytes]) -> list[dict[str, Any]]:
    """The choices of the frames, in their order."""
    values = [json_payload(frame) for frame in FrameSplitter().feed(b"".join(frames))]
    return [value["choices"][0] for value in values if value is not None]


def test_thoughts_text_and_calls_come_apart() -> None:
    """In their order, and the answer ended in a call."""
    frames, writer = written(tokens_of(f"<think>\nHm.\n</think>\n\nOne moment.\n{CALL}"))
    choice = whole(frames)

    assert choice["message"] == {
        "role": "assistant",
        "content": "One moment.\n",
        "reasoning_content": "Hm.\n",
        "tool_calls": [
            {
                "id": "call_0",
                "type": "function",
                "function": {"name": "clock", "arguments": '{"zone":"UTC"}'},
            }
        ],
    }
    assert choice["finish_reason"] == "tool_calls"
    assert 0 < writer.reasoning_tokens <= len(tokens_of("<think>\nHm.\n</think>"))


@pytest.mark.parametrize(
    ("text", "cut", "reason"),
    [
        ("Hi.", False, "stop"),
        ("Hi.", True, "length"),
        ("", True, "length"),
        (CALL, False, "tool_calls"),
        (CALL, True, "length"),
        (CALL[:-20], True, "length"),
    ],
)
def test_why_an_answer_ended(text: str, cut: bool, reason: str) -> None:
    """A call that came before the limit does not make the answer complete."""
    assert whole(written(tokens_of(text), cut=cut)[0])["finish_reason"] == reason


def test_the_stop_string_is_named_and_not_shown() -> None:
    """Other dialects tell which it was."""
    choice = whole(written(tokens_of("a stop b"), stops=("stop",))[0])

    assert choice["message"]["content"] == "a "
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "stop")


def test_half_a_call_is_the_text_that_it_was() -> None:
    """Nothing that the model wrote is lost."""
    assert whole(written(tokens_of(CALL[:30]), cut=True)[0])["message"]["content"] == CALL[:30]


def test_one_call_is_one_call() -> None:
    """The answer ends behind it, and what still comes is left out."""
    frames, writer = written(tokens_of(CALL + CALL), one_call=True)

    assert writer.enough
    assert len(whole(frames)["message"]["tool_calls"]) == 1
    assert whole(frames)["finish_reason"] == "tool_calls"
    assert writer.say(TextStream(VOCABULARY).feed(tokens_of("x")[0])) == b""


def test_two_calls_in_one_piece_are_one_call_too() -> None:
    """However much comes at once."""
    writer = ChatWriter(HEAD, 0, VOCABULARY, splitter(), one_call=True)
    frames = [writer.say(Piece(CALL + CALL)), writer.close(cut=False, stopped_by=None)]

    assert len(whole(frames)["message"]["tool_calls"]) == 1


def test_log_probabilities_are_of_the_text() -> None:
    """Of what a client reads: neither of the thoughts, nor of markers, nor of calls."""
    answer = f"<think>\nHm.\n</think>\n\nOne moment.{CALL}"
    choice = whole(written(tokens_of(answer), odds=ODDS)[0])
    rows = choice["logprobs"]["content"]

    assert "".join(row["token"] for row in rows) == "One moment."
    assert all(row["top_logprobs"] for row in rows)


def test_without_markup_every_token_has_its_log_probability() -> None:
    """Half characters too, also where the other half never came."""
    tokens = tokens_of("a 😀", range(9))[:-1]
    choice = whole(written(tokens, odds=ODDS, cut=True)[0])
    rows = choice["logprobs"]["content"]

    assert choice["message"]["content"] == "a "
    assert [byte for row in rows for byte in row["bytes"]] == list("a 😀".encode()[:-1])


@given(answers, cuts, st.sampled_from([(), ("stop",), ("\n", "😀")]), st.booleans())
def test_an_answer_is_the_same_however_it_is_cut(
    text: str, at: list[int], stops: tuple[str, ...], cut: bool
) -> None:
    """Its tokens may be a byte each or the whole of it."""
    finely = whole(written(tokens_of(text, at), stops=stops, cut=cut)[0])

    assert finely == whole(written(tokens_of(text), stops=stops, cut=cut)[0])


@given(answers, cuts)
def test_log_probabilities_never_tell_more_than_the_text(text: str, at: list[int]) -> None:
    """Their tokens stand in the text, in its order, and each once."""
    choice = whole(written(tokens_of(text, at), odds=ODDS)[0])
    rows = (choice["logprobs"] or {"content": []})["content"]
    content = iter(choice["message"]["content"] or "")
    said = bytes(byte for row in rows for byte in row["bytes"]).decode("utf-8", "ignore")

    assert all(character in content for character in said)


@given(answers)
def test_plain_text_has_all_its_log_probabilities(text: str) -> None:
    """Where nobody looks for markup, all of it is text."""
    tokens = tokens_of(text)
    plain = splitter(tools=False, thinks=False)
    choice = whole(written(tokens, odds=ODDS, split=plain)[0])
    rows = (choice["logprobs"] or {"content": []})["content"]

    assert bytes(byte for row in rows for byte in row["bytes"]) == text.encode()
    assert choice["message"]["content"] == text


def test_every_frame_belongs_to_its_choice() -> None:
    """The first says who speaks, and the last why it ended."""
    frames, _ = written(tokens_of(f"a{CALL}"))
    rows = deltas(frames)

    assert rows[0]["delta"] == {"role": "assistant", "content": ""}
    assert [row["finish_reason"] for row in rows] == [None] * (len(rows) - 1) + ["tool_calls"]
    assert all(row["index"] == 0 for row in rows)
    assert all(json.dumps(HEAD["id"]).encode() in frame for frame in frames if frame)
