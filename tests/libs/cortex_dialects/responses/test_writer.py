"""An answer as the events of a Responses stream, by example."""

from typing import Any

import pytest
from orjson import dumps, loads

from cortex_dialects.completion_events import (
    CompletionEvent,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from cortex_dialects.failure import Failure
from cortex_dialects.responses import ResponsesWriter, to_chat
from cortex_dialects.sse import FrameSplitter, json_payload
from cortex_dialects.translation import TranslatedStream, translate_answer
from cortex_dialects.usage import Usage
from tests.libs.cortex_dialects.responses.bodies import APPLY_PATCH, FILES, SHELL, codex
from tests.libs.cortex_dialects.responses.sdk import check_answer
from tests.libs.cortex_dialects.streams import DONE, HELLO, frame


def writer_for(request: dict[str, Any]) -> ResponsesWriter:
    """A writer of an answer to this."""
    return ResponsesWriter(response_id="resp_ab", model="m", created_at=7, request=request)


def events_of(*events: CompletionEvent, request: dict[str, Any] | None = None) -> list[Any]:
    """The events after the opening ones, by type, with what matters of each."""
    writer = writer_for(codex() if request is None else request)
    writer.open()
    out = [made for event in events for made in writer.take(event)]
    return [_told(event) for event in [*out, *writer.close()]]


def _told(event: dict[str, Any]) -> tuple[Any, ...]:
    kind = event["type"].removeprefix("response.")
    if "response" in event:
        return (kind, [item["type"] for item in event["response"]["output"]])
    if "item" in event:
        return (kind, event["output_index"], event["item"]["id"], event["item"]["status"])
    if "part" in event:
        return (kind, event["output_index"], event["part"]["text"])
    for field in ("delta", "text", "arguments", "input"):
        if field in event:
            return (kind, event["output_index"], event[field])
    raise AssertionError(event)


def test_thoughts_text_and_a_call() -> None:
    """The whole order, once."""
    assert events_of(
        ReasoningDelta("hm"),
        TextDelta("He"),
        TextDelta("y"),
        ToolCallDelta(0, "c1", "shell", '{"command":'),
        ToolCallDelta(0, None, None, "[]}"),
        Finished("tool_calls"),
    ) == [
        ("output_item.added", 0, "rs_ab_0", "in_progress"),
        ("reasoning_summary_part.added", 0, ""),
        ("reasoning_summary_text.delta", 0, "hm"),
        ("reasoning_summary_text.done", 0, "hm"),
        ("reasoning_summary_part.done", 0, "hm"),
        ("output_item.done", 0, "rs_ab_0", "completed"),
        ("output_item.added", 1, "msg_ab_1", "in_progress"),
        ("content_part.added", 1, ""),
        ("output_text.delta", 1, "He"),
        ("output_text.delta", 1, "y"),
        ("output_text.done", 1, "Hey"),
        ("content_part.done", 1, "Hey"),
        ("output_item.done", 1, "msg_ab_1", "completed"),
        ("output_item.added", 2, "fc_ab_2", "in_progress"),
        ("function_call_arguments.delta", 2, '{"command":'),
        ("function_call_arguments.delta", 2, "[]}"),
        ("function_call_arguments.done", 2, '{"command":[]}'),
        ("output_item.done", 2, "fc_ab_2", "completed"),
        ("completed", ["reasoning", "message", "function_call"]),
    ]


def test_a_custom_tools_text_is_streamed() -> None:
    """The client asked for free text and never sees the function it was made of."""
    assert events_of(
        ToolCallDelta(0, "c1", "apply_patch", '{"input":"a\\n'),
        ToolCallDelta(0, None, None, 'b"'),
        ToolCallDelta(0, None, None, "}"),
        Finished("tool_calls"),
    ) == [
        ("output_item.added", 0, "ctc_ab_0", "in_progress"),
        ("custom_tool_call_input.delta", 0, "a\n"),
        ("custom_tool_call_input.delta", 0, "b"),
        ("custom_tool_call_input.done", 0, "a\nb"),
        ("output_item.done", 0, "ctc_ab_0", "completed"),
        ("completed", ["custom_tool_call"]),
    ]


def answer_to(*events: CompletionEvent, request: dict[str, Any] | None = None) -> dict[str, Any]:
    """The whole answer."""
    writer = writer_for(codex() if request is None else request)
    for event in events:
        writer.take(event)
    writer.close()
    return writer.answer()


def test_a_tool_is_called_by_the_clients_name() -> None:
    """Groups and kinds are restored; a tool nobody declared keeps the name that the model gave."""
    answer = answer_to(
        ToolCallDelta(0, "c1", "mcp__files__read", "{}"),
        ToolCallDelta(1, None, "apply_patch", '{"input":"x"}'),
        ToolCallDelta(2, "c3", "elsewhere", "{}"),
    )

    assert answer["output"] == [
        {
            "type": "function_call",
            "id": "fc_ab_0",
            "status": "completed",
            "call_id": "c1",
            "namespace": "mcp__files__",
            "name": "read",
            "arguments": "{}",
        },
        {
            "type": "custom_tool_call",
            "id": "ctc_ab_1",
            "status": "completed",
            "call_id": "call_ab_1",
            "name": "apply_patch",
            "input": "x",
        },
        {
            "type": "function_call",
            "id": "fc_ab_2",
            "status": "completed",
            "call_id": "c3",
            "name": "elsewhere",
            "arguments": "{}",
        },
    ]


def test_a_call_goes_round_unchanged() -> None:
    """What the model called is what the next turn's request tells it that it called."""
    answer = answer_to(
        ReasoningDelta("hm"),
        TextDelta("text"),
        ToolCallDelta(0, "c1", "mcp__files__read", '{"path":"x"}'),
        ToolCallDelta(1, "c2", "apply_patch", '{"input":"x"}'),
    )
    user = {"role": "user", "content": "go"}
    turn = to_chat({**codex(), "instructions": None, "input": [user, *answer["output"]]})

    assert turn["messages"][1] == {
        "role": "assistant",
        "content": "text",
        "reasoning_content": "hm",
        "tool_calls": [
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "mcp__files__read", "arguments": '{"path":"x"}'},
            },
            {
                "id": "c2",
                "type": "function",
                "function": {"name": "apply_patch", "arguments": '{"input":"x"}'},
            },
        ],
    }


def calls_of(*deltas: CompletionEvent) -> list[tuple[str, str]]:
    """The calls of the answer, by id and arguments."""
    output = answer_to(*deltas)["output"]
    return [(one["call_id"], one["arguments"]) for one in output if "arguments" in one]


def test_calls_that_come_in_turns_are_kept_apart() -> None:
    """Some engines write several calls at once."""
    assert calls_of(
        ToolCallDelta(0, "a", "shell", '{"x"'),
        ToolCallDelta(1, "b", "shell", '{"y"'),
        ToolCallDelta(0, "a", "shell", ":1}"),
        TextDelta("so"),
        ToolCallDelta(1, None, None, ":2}"),
    ) == [("a", '{"x":1}'), ("b", '{"y":2}')]


def test_another_id_is_another_call() -> None:
    """Some engines give each call the first position."""
    assert calls_of(
        ToolCallDelta(0, "a", "shell", "{}"),
        ToolCallDelta(0, "b", "shell", "{}"),
    ) == [("a", "{}"), ("b", "{}")]


def test_nothing_is_added_to_a_whole_call() -> None:
    """Arguments that were told to be complete stay so; text after a call is a new message."""
    assert events_of(
        TextDelta("a"),
        ToolCallDelta(0, "c", "shell", "{}"),
        TextDelta("b"),
        ToolCallDelta(0, "c", "shell", "{}"),
        TextDelta("c"),
    )[6:] == [
        ("output_item.added", 1, "fc_ab_1", "in_progress"),
        ("function_call_arguments.delta", 1, "{}"),
        ("function_call_arguments.done", 1, "{}"),
        ("output_item.done", 1, "fc_ab_1", "completed"),
        ("output_item.added", 2, "msg_ab_2", "in_progress"),
        ("content_part.added", 2, ""),
        ("output_text.delta", 2, "b"),
        ("output_text.delta", 2, "c"),
        ("output_text.done", 2, "bc"),
        ("content_part.done", 2, "bc"),
        ("output_item.done", 2, "msg_ab_2", "completed"),
        ("completed", ["message", "function_call", "message"]),
    ]


@pytest.mark.parametrize(
    ("finish", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("eos", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
    ],
)
def test_how_an_answer_ended(finish: str, status: str, details: dict[str, str] | None) -> None:
    """The budget may end in the middle of a thought: the item is closed, and says so."""
    answer = answer_to(ReasoningDelta("hm"), Finished(finish))

    assert (answer["status"], answer["incomplete_details"]) == (status, details)
    assert answer["output"][0]["status"] == status


def test_a_whole_call_is_complete_in_an_incomplete_answer() -> None:
    """Only what was cut is incomplete."""
    answer = answer_to(
        ToolCallDelta(0, "a", "shell", "{}"),
        ToolCallDelta(1, "b", "shell", '{"x'),
        Finished("length"),
    )

    assert [item["status"] for item in answer["output"]] == ["completed", "incomplete"]


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        (400, "context_length_exceeded", "context_length_exceeded"),
        (400, None, "invalid_prompt"),
        (429, "rate_limit_exceeded", "rate_limit_exceeded"),
        (503, "node_lost", "server_error"),
        (500, None, "server_error"),
    ],
)
def test_failures_have_codes_that_clients_act_on(
    status: int, code: str | None, wanted: str
) -> None:
    """Compact, slow down, give up or try again; what had ended of the answer is still there."""
    writer = writer_for({"model": "m", "input": "x"})
    writer.open()
    for event in (ReasoningDelta("hm"), TextDelta("a")):
        writer.take(event)
    out = writer.fail(Failure(status=status, type="t", message="no", code=code))

    assert [event["type"] for event in out] == ["response.failed"]
    assert out[0]["response"]["error"] == {"code": wanted, "message": "no"}
    assert [item["type"] for item in out[0]["response"]["output"]] == ["reasoning"]


def test_usage() -> None:
    """The SDK wants every count: one that nobody told is zero; none at all is null."""
    usage = Usage(prompt=5, completion=2, cached=3)

    assert answer_to(TextDelta("a"))["usage"] is None
    assert answer_to(UsageReported(usage))["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }


def test_the_answer_repeats_what_was_honoured() -> None:
    """Tools that nobody could run, and storage, are not claimed."""
    answer = answer_to(request={**codex(), "temperature": 0.5, "store": True})

    assert answer["tools"] == [
        SHELL,
        APPLY_PATCH,
        {**FILES, "tools": [{**tool, "strict": None} for tool in FILES["tools"]]},
    ]
    assert answer["store"] is False
    assert answer["instructions"] == "You are a coding agent."
    assert answer["temperature"] == 0.5
    assert answer["reasoning"] == {"effort": "medium", "summary": "auto"}
    check_answer(answer)


def test_a_choice_in_another_dialects_form_is_repeated_in_this_ones() -> None:
    """Clients send both; the SDK reads one."""
    choice = {"type": "function", "function": {"name": "shell"}}
    answer = answer_to(request={**codex(), "tool_choice": choice})

    assert answer["tool_choice"] == {"type": "function", "name": "shell"}


def test_a_whole_answer_is_the_fold_of_the_streamed_one() -> None:
    """Bytes in, bytes out, by both ways; the type and a number stand in every payload."""
    stream = TranslatedStream(writer_for(codex()), keep_alive=b": keep-alive\n\n")
    raw = stream.open() + stream.feed(HELLO) + stream.finish()
    events = [json_payload(one) for one in FrameSplitter().feed(raw)]
    whole = {
        "choices": [
            {"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"},
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 3},
        },
    }
    answer = translate_answer(whole, writer_for(codex()))

    assert [event["sequence_number"] for event in events if event] == list(range(len(events)))
    assert events[-1] == {
        "type": "response.completed",
        "sequence_number": len(events) - 1,
        "response": loads(dumps(answer)),
    }


def test_an_engines_error_ends_the_stream() -> None:
    """Never a silent or a false normal end."""
    stream = TranslatedStream(writer_for(codex()), keep_alive=b": keep-alive\n\n")
    raw = stream.feed(frame({"error": {"message": "out of memory"}}) + DONE) + stream.finish()
    last = json_payload(FrameSplitter().feed(raw)[-1])

    assert last is not None
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "out of memory"}


def test_log_probabilities_are_told_with_the_text_and_once_more_whole() -> None:
    """Every field is there, whatever the engine leaves out."""
    made = writer_for({})
    made.open()
    row = {"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": -1.5}]}
    (*_, delta) = made.take(TextDelta("Hi", (row,)))
    made.take(Finished("stop"))
    made.close()

    told = {
        "token": "Hi",
        "bytes": [72, 105],
        "logprob": -0.5,
        "top_logprobs": [{"token": "Ho", "bytes": [72, 111], "logprob": -1.5}],
    }
    assert delta["logprobs"] == [told]
    assert made.answer()["output"][0]["content"][0]["logprobs"] == [told]


def test_a_call_without_arguments_has_an_empty_object_of_them() -> None:
    """Clients read them as JSON."""
    answer = answer_to(ToolCallDelta(0, "c", "now", ""), Finished("tool_calls"))

    assert answer["output"][0]["arguments"] == "{}"
