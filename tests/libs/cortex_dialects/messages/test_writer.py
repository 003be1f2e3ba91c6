"""Completions become messages in the order that clients expect."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orjson import dumps, loads

from cortex_dialects import Failure, Usage
from cortex_dialects.completion_events import (
    CompletionEvent,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from cortex_dialects.messages import MessageReader, MessageWriter, read_message
from tests.libs.cortex_dialects.completions import answers, calls, chaos, merged
from tests.libs.cortex_dialects.messages.grammar import accept, folded

LOST = Failure(status=503, type="api_error", message="lost")


def writer(*, show_thinking: bool = True) -> MessageWriter:
    """Return a writer of one message."""
    return MessageWriter(
        message_id="msg_1", model="m", request_id="req-1", show_thinking=show_thinking
    )


def written(
    events: Iterable[CompletionEvent], *, show_thinking: bool = True
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the events of a whole message, and the message."""
    made = writer(show_thinking=show_thinking)
    out = made.open()
    for event in events:
        out += made.take(event)
    out += made.close()
    return out, made.answer()


def kinds(events: Iterable[dict[str, Any]]) -> list[str]:
    """Return the types of the events."""
    return [event["type"] for event in events]


def test_thought_text_and_call_each_have_a_block() -> None:
    """Numbered without gaps, the thought signed before it ends."""
    events, message = written(
        [
            ReasoningDelta("Hm"),
            ReasoningDelta("."),
            TextDelta("I look."),
            ToolCallDelta(0, "call_1", "ls", ""),
            ToolCallDelta(0, None, None, '{"path":'),
            ToolCallDelta(0, None, None, '"/"}'),
            Finished("tool_calls"),
            UsageReported(Usage(prompt=10, completion=5, cached=4)),
        ]
    )

    assert kinds(events) == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [block["type"] for block in message["content"]] == ["thinking", "text", "tool_use"]
    assert message["content"][2]["input"] == {"path": "/"}
    assert message["stop_reason"] == "tool_use"
    assert message["usage"] == {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
    }


@pytest.mark.parametrize(
    ("events", "reason", "sequence"),
    [
        ([Finished("stop")], "end_turn", None),
        ([Finished("stop", "END")], "stop_sequence", "END"),
        ([Finished("length")], "max_tokens", None),
        ([Finished("content_filter")], "refusal", None),
        ([ToolCallDelta(0, "c", "f", "{}"), Finished("stop")], "tool_use", None),
        ([ToolCallDelta(0, "c", "f", "{"), Finished("length")], "max_tokens", None),
    ],
)
def test_why_it_stopped_is_told_in_anthropics_words(
    events: list[CompletionEvent], reason: str, sequence: str | None
) -> None:
    """A call is a tool use even where the engine calls it a stop; a cut call is not."""
    _, message = written(events)

    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


def test_calls_that_come_side_by_side_are_told_one_after_the_other() -> None:
    """Only one block is open at a time, and no piece lands in another's."""
    events, message = written(
        [
            ToolCallDelta(0, "a", "f", '{"x"'),
            ToolCallDelta(1, "b", "g", '{"y"'),
            ToolCallDelta(0, None, None, ":1}"),
            ToolCallDelta(1, None, None, ":2}"),
            Finished("tool_calls"),
        ]
    )

    accept(events)
    assert [(b["name"], b["input"]) for b in message["content"]] == [
        ("f", {"x": 1}),
        ("g", {"y": 2}),
    ]


def test_a_call_that_has_no_arguments_yet_is_not_over() -> None:
    """Some engines name every call first, and then give each its arguments in turn."""
    events, message = written(
        [
            ToolCallDelta(0, "a", "f", ""),
            ToolCallDelta(1, "b", "g", ""),
            ToolCallDelta(0, None, None, '{"x":1}'),
            ToolCallDelta(1, None, None, '{"y":2}'),
            Finished("tool_calls"),
        ]
    )

    accept(events)
    assert [(b["id"], b["name"], b["input"]) for b in message["content"]] == [
        ("a", "f", {"x": 1}),
        ("b", "g", {"y": 2}),
    ]


def test_another_call_at_the_same_position_is_another_call() -> None:
    """Some engines number none of them."""
    events, message = written(
        [
            ToolCallDelta(0, "a", "f", "{}"),
            ToolCallDelta(0, "b", "g", '{"y":'),
            ToolCallDelta(0, None, None, "2}"),
            Finished("tool_calls"),
        ]
    )

    accept(events)
    assert [(b["id"], b["name"], b["input"]) for b in message["content"]] == [
        ("a", "f", {}),
        ("b", "g", {"y": 2}),
    ]


def test_text_in_the_middle_of_a_call_waits_for_its_end() -> None:
    """A call cut in two would be two broken ones."""
    events, message = written(
        [
            ToolCallDelta(0, "a", "f", '{"x"'),
            TextDelta("And"),
            ToolCallDelta(0, None, None, ":1}"),
            TextDelta(" so on"),
            Finished("tool_calls"),
        ]
    )

    accept(events)
    assert message["content"] == [
        {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}},
        {"type": "text", "text": "And so on"},
    ]


def test_pieces_after_the_end_of_a_call_begin_no_other() -> None:
    """A call without a name is one that no client can answer."""
    _, message = written(
        [
            ToolCallDelta(0, "a", "f", "{}"),
            TextDelta("Well"),
            ToolCallDelta(0, None, None, " "),
            Finished("tool_calls"),
        ]
    )

    assert [block["type"] for block in message["content"]] == ["tool_use", "text"]


@pytest.mark.parametrize("arguments", ["city=Paris", "[1]", "null", ' "x"', " "])
def test_arguments_that_are_no_object_are_one_in_the_stream_too(arguments: str) -> None:
    """Clients read what they put together as an object, and fail on anything else."""
    cut = [ToolCallDelta(0, None, None, piece) for piece in arguments]
    events, message = written([ToolCallDelta(0, "a", "f", ""), *cut, Finished("tool_calls")])
    streamed = folded(events)["content"][0]["input"]

    assert loads(streamed) == message["content"][0]["input"] == {"unparsed_arguments": arguments}


@given(made=calls(), order=st.randoms(use_true_random=False))
def test_calls_come_whole_however_their_pieces_are_mixed(
    made: list[list[ToolCallDelta]], order: Random
) -> None:
    """As long as the pieces of each are in order."""
    left = [list(pieces) for pieces in made]
    mixed = []
    while any(left):
        mixed.append(order.choice([pieces for pieces in left if pieces]).pop(0))
    events, message = written([*mixed, Finished("tool_calls")])

    accept(events)
    told = {block["id"]: (block["name"], block["input"]) for block in message["content"]}
    assert told == {
        pieces[0].id: (pieces[0].name, loads("".join(piece.arguments for piece in pieces)))
        for pieces in made
    }
    assert [block["name"] for block in folded(events)["content"]] == [
        block["name"] for block in message["content"]
    ]


def test_arguments_cut_short_stay_readable() -> None:
    """The token limit can end a call in the middle; what came is not thrown away."""
    _, message = written([ToolCallDelta(0, "a", "f", '{"x": "hal'), Finished("length")])

    assert message["content"][0]["input"] == {"unparsed_arguments": '{"x": "hal'}


def test_a_calls_id_is_new_to_the_conversation() -> None:
    """An agent does not carry out a call whose id it knows; engines number theirs anew."""
    made = MessageWriter(message_id="msg_1", model="m", request_id="r", known_calls=["call_1"])
    made.open()
    for event in (
        ToolCallDelta(0, "call_1", "f", "{}"),
        ToolCallDelta(1, "call_2", "f", "{}"),
        ToolCallDelta(2, "call_2", "f", "{}"),
        Finished("tool_calls"),
    ):
        made.take(event)
    made.close()

    assert [block["id"] for block in made.answer()["content"]] == [
        "toolu_1_0",
        "call_2",
        "toolu_1_2",
    ]


def test_thoughts_are_left_out_for_clients_that_want_none() -> None:
    """Many read the first block as text."""
    _, message = written(
        [ReasoningDelta("Hm"), TextDelta("Hi"), Finished("stop")], show_thinking=False
    )

    assert message["content"] == [{"type": "text", "text": "Hi"}]


@given(events=answers() | chaos, seen=st.booleans())
def test_every_stream_follows_the_grammar(events: list[CompletionEvent], seen: bool) -> None:
    """Whatever the engine sent, in whatever order; the end of a message is its end."""
    finished = [*events, Finished("stop")]
    out, _ = written(finished, show_thinking=seen)

    assert accept(out).state == "end"


@given(events=answers() | chaos, at=st.integers(0, 40))
def test_a_stream_cut_anywhere_ends_in_an_error(events: Sequence[CompletionEvent], at: int) -> None:
    """Never in a stop reason."""
    made = writer()
    out = made.open()
    for event in events[:at]:
        out += made.take(event)
    out += made.fail(LOST)

    assert accept(out).state == "end"
    assert "message_delta" not in kinds(out)


@given(events=answers())
def test_the_whole_message_is_the_fold_of_its_stream(events: list[CompletionEvent]) -> None:
    """As a client would fold it."""
    out, message = written(events)
    streamed = folded(out)

    for block, told in zip(message["content"], streamed["content"], strict=True):
        if block["type"] == "tool_use":
            told["input"] = loads(told["input"])
        assert block == told
    assert {**streamed, "content": 0} == {**message, "content": 0}


@given(events=answers())
def test_reading_a_message_back_gives_what_was_said(events: list[CompletionEvent]) -> None:
    """Streamed and whole; only a stop string that nobody told is unknown."""
    out, message = written(events)
    reader = MessageReader()
    back = [event for told in out for event in reader.read(told)]
    said = [event for event in events if not isinstance(event, Finished | UsageReported)]

    assert [e for e in merged(back) if not isinstance(e, Finished | UsageReported)] == merged(said)
    assert reader.done
    whole = [e for e in read_message(message) if not isinstance(e, Finished | UsageReported)]
    assert _without_spacing(merged(whole)) == _without_spacing(merged(said))
    told = next(event for event in events if isinstance(event, Finished))
    finish = next(event for event in back if isinstance(event, Finished))
    called = any(isinstance(event, ToolCallDelta) for event in events)
    if told.reason == "stop" and called:
        assert finish.reason == "tool_calls"
    elif told.reason in {"stop", "length", "content_filter", "tool_calls"}:
        assert finish.reason == told.reason
    usage = [event.usage for event in events if isinstance(event, UsageReported)]
    if usage:
        read = [event.usage for event in back if isinstance(event, UsageReported)][-1]
        assert (read.prompt, read.completion) == (usage[-1].prompt, usage[-1].completion)
        assert read.cached == (usage[-1].cached or 0)


def _without_spacing(events: list[CompletionEvent]) -> list[CompletionEvent]:
    return [
        e._replace(arguments=dumps(loads(e.arguments or "{}")).decode())
        if isinstance(e, ToolCallDelta)
        else e
        for e in events
    ]
