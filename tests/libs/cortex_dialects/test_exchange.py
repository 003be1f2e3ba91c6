"""One request and its answer, in every dialect."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orjson import dumps, loads

from cortex_dialects import (
    BadBody,
    Envelope,
    Exchange,
    Failure,
    Ticket,
    envelope_of,
    json_payload,
    read_messages,
    read_passed,
    read_responses,
)
from cortex_dialects.completion_events import (
    CompletionEvent,
    Finished,
    TextDelta,
    ToolCallDelta,
)
from tests.libs.cortex_dialects.completions import answer_of, answers, cut, objects, stream_of

TICKET = Ticket(request_id="req-1", answer_id="abc", created=7)
LOST = Failure(status=503, type="api_error", message="lost")
MESSAGES = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}


def exchange(dialect: str, **more: Any) -> Exchange:
    """Return a small request in a dialect."""
    match dialect:
        case "anthropic":
            body = {**MESSAGES, "thinking": {"type": "adaptive"}, **more}
            return read_messages(dumps(body), TICKET)
        case "responses":
            return read_responses(dumps({"model": "m", "input": "hi", **more}), TICKET)
        case _:
            return read_passed(dumps({"model": "m", **more}), "/v1/chat/completions")


DIALECTS = st.sampled_from(["openai", "anthropic", "responses"])


def told(exchange: Exchange, chunks: list[bytes]) -> bytes:
    """Return what a client gets of a node's stream."""
    stream = exchange.stream()
    out = stream.open() + b"".join(map(stream.feed, chunks)) + stream.finish()
    return out if stream.complete else out + stream.fail(LOST)


@given(dialect=DIALECTS, events=answers(), at=st.lists(st.integers(0, 4000), max_size=6))
def test_any_cut_of_the_bytes_gives_the_same_stream(
    dialect: str, events: list[CompletionEvent], at: list[int]
) -> None:
    """Byte for byte."""
    raw = stream_of(events)

    assert told(exchange(dialect), cut(raw, at)) == told(exchange(dialect), [raw])


@given(dialect=DIALECTS, events=answers(), at=st.integers(0, 4000))
def test_a_stream_cut_short_ends_in_an_error_event(
    dialect: str, events: list[CompletionEvent], at: int
) -> None:
    """Never in a normal end, unless the model had finished."""
    raw = stream_of(events)
    made = exchange(dialect)
    stream = made.stream()
    out = stream.open() + stream.feed(cut(raw, [at])[0]) + stream.finish()
    ending = stream.fail(LOST) if not stream.complete else b""

    finished = stream.finish_reason is not None
    assert (b"lost" in ending) == (not finished)
    if not finished:
        assert not any(end in out for end in (b"message_stop", b"response.completed", b"[DONE]"))
    assert all(json_payload(frame + b"\n\n") for frame in _json_frames(out + ending))


@pytest.mark.parametrize("dialect", ["anthropic", "responses"])
@pytest.mark.parametrize("frame", [b'data: {"choices": [', b"data: oops", b"data: [1]"])
def test_a_frame_that_cannot_be_read_fails_the_stream(dialect: str, frame: bytes) -> None:
    """Some of the answer was in it; half a frame at the end is a stream cut short instead."""
    made = exchange(dialect).stream()
    out = made.feed(stream_of([TextDelta("x")]).replace(b"data: [DONE]", frame)) + made.finish()

    assert b"could not be read" in out
    assert made.failure is not None
    assert made.failure["code"] == "upstream_malformed_response"
    half = exchange(dialect).stream()
    assert b"could not be read" not in half.feed(frame) + half.finish()
    assert half.failure is None
    assert not half.complete


def _json_frames(stream: bytes) -> list[bytes]:
    return [frame for frame in stream.split(b"\n\n") if b"data: {" in frame]


@given(dialect=st.sampled_from(["anthropic", "responses"]), events=answers())
def test_a_whole_answer_says_what_its_stream_says(
    dialect: str, events: list[CompletionEvent]
) -> None:
    """Both are made of the same events."""
    stream = told(exchange(dialect), [stream_of(events)])
    whole = exchange(dialect).whole(dumps(answer_of(events)))
    last = [json_payload(frame + b"\n\n") for frame in _json_frames(stream)]

    assert whole is not None
    if dialect == "responses":
        assert _plain(loads(whole)) == _plain(last[-1]["response"])  # type: ignore[index]
    else:
        assert [e["type"] for e in last if e][-1] == "message_stop"


def _plain(response: Any) -> Any:
    """Return a response with the texts of its items joined, as a whole answer has them."""
    joined: dict[str, str] = {}
    for item in response["output"]:
        for part in item.get("content") or item.get("summary") or [{"text": item["arguments"]}]:
            joined[item["type"]] = joined.get(item["type"], "") + part["text"]
    return {**response, "output": joined}


def test_a_whole_answer_that_is_not_finished_is_none() -> None:
    """A node that forgets the finish reason is not believed."""
    for raw in (b"{}", b"[]", dumps({"choices": [{"message": {"content": "x"}}]})):
        assert exchange("anthropic").whole(raw) is None


@given(
    rest=objects.filter(lambda o: not {"model", "stream", "stream_options", "keep_alive"} & set(o)),
    nested=objects,
    spaces=st.sampled_from([b"", b" ", b"\n  "]),
)
def test_an_alias_changes_one_field_and_no_other_byte(
    rest: dict[str, Any], nested: dict[str, Any], spaces: bytes
) -> None:
    """Wherever the field stands, and whatever else is called model."""
    head = dumps({**rest, "metadata": {"model": nested, "x": ["model", {"model": "y"}]}})
    tail = b"," + spaces + b'"model"' + spaces + b":" + spaces + b'"al\\"ias"'
    raw = head[:-1] + tail + spaces + b"}"
    body = read_passed(raw, "/v1/completions").node_body("org/model")

    assert body == raw.replace(b'"al\\"ias"', b'"org/model"')


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model": 7, "model": "m"}',
        b'{"model": "a", "model": "m"}',
        b'{"model": "a", "\\u006dodel": "m"}',
        b'{"\\u006dodel": "m", "x": {"model": "n"}}',
    ],
)
def test_a_model_named_twice_is_served_as_it_was_admitted(raw: bytes) -> None:
    """Nobody can have one model looked at here and another one read by the node."""
    body = read_passed(raw, "/v1/completions").node_body("org/model")

    assert loads(body) == {**loads(raw), "model": "org/model"}
    assert b'"a"' not in body


def test_a_body_in_the_nodes_dialect_is_not_touched() -> None:
    """Not a byte, unknown fields included."""
    raw = b'{ "model":"m" , "messages":[], "future": {"a": 1.0e0} }'

    assert read_passed(raw, "/v1/chat/completions").node_body("m") is raw


def test_ids_of_calls_in_the_conversation_are_not_used_again() -> None:
    """Whatever the engine calls its next one."""
    call = {"type": "tool_use", "id": "call_0", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "call_0", "content": "x"}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
    ]
    made = exchange("anthropic", messages=turns)
    again: list[CompletionEvent] = [ToolCallDelta(0, "call_0", "f", "{}"), Finished("tool_calls")]

    assert b'"call_0"' not in told(made, [stream_of(again)])


@pytest.mark.parametrize("depth", [190, 260, 900])
def test_a_body_that_no_node_could_read_is_refused_at_once(depth: int) -> None:
    """In every dialect, before anything of it can fail further in; what passes can be written."""
    deep = b"[" * depth + b"]" * depth
    field = b',"deep":' + deep + b',"tools":[{"name":"f","input_schema":{"a":' + deep + b"}}]}"
    body = dumps({**MESSAGES, "input": "hi"})[:-1] + field
    reads: list[Callable[[], Exchange]] = [
        lambda: read_passed(body, "/v1/chat/completions"),
        lambda: read_messages(body, TICKET),
    ]
    for read in reads:
        if depth < 250:
            assert read().node_body("another")
            continue
        with pytest.raises(BadBody, match="nested"):
            read()


def test_an_error_frame_of_the_node_ends_the_stream_in_the_clients_words() -> None:
    """And nothing follows, whatever the node sends."""
    error = b'data: {"error":{"message":"no","type":"api_error","code":"x"}}\n\n'
    stream = exchange("anthropic").stream()
    out = stream.feed(error) + stream.feed(stream_of([Finished("stop")])) + stream.finish()

    assert b'"type":"api_error","message":"no"' in out
    assert b"message_stop" not in out
    assert stream.fail(LOST) == b""


@pytest.mark.parametrize("dialect", ["anthropic", "responses"])
def test_an_answer_that_the_engine_gave_up_does_not_end_well(dialect: str) -> None:
    """Some say so in the finish reason."""
    events = [Finished("abort")]

    assert b"gave up" in told(exchange(dialect), [stream_of(events)])
    assert exchange(dialect).whole(dumps(answer_of(events))) is None


@pytest.mark.parametrize(
    ("path", "headers", "envelope"),
    [
        ("/v1/messages", {}, Envelope.ANTHROPIC),
        ("/v1/messages/count_tokens", {}, Envelope.ANTHROPIC),
        ("/v1/models", {"anthropic-version": "2023-06-01"}, Envelope.ANTHROPIC),
        ("/v1/models", {}, Envelope.OPENAI),
        ("/v1/responses", {}, Envelope.OPENAI),
    ],
)
def test_errors_are_told_in_the_clients_dialect(
    path: str, headers: dict[str, str], envelope: Envelope
) -> None:
    """By the route, and by the header that only Anthropic's clients send."""
    assert envelope_of(path, headers) is envelope
