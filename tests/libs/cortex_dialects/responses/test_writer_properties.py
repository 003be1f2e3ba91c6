"""Whatever an engine says, cut short anywhere: a stream that clients can read, and its fold."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from orjson import dumps

from cortex_dialects.completion_events import (
    CompletionEvent,
    Failed,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    UsageReported,
)
from cortex_dialects.failure import Failure
from cortex_dialects.responses import ResponsesWriter
from cortex_dialects.usage import Usage
from tests.libs.cortex_dialects.responses.bodies import codex
from tests.libs.cortex_dialects.responses.grammar import Grammar
from tests.libs.cortex_dialects.responses.sdk import check_answer, check_event

PIECES = ['{"inp', 'ut":"', "a\\", 'n"}', "{}", '{"a":1}', " ", "", "\\ud83d", "\\ude00"]
NAMES = [None, "shell", "apply_patch", "mcp__files__read", "elsewhere"]
EVENTS: st.SearchStrategy[CompletionEvent] = st.one_of(
    st.builds(TextDelta, st.sampled_from(["a", "é", ""]), st.just(())),
    st.builds(ReasoningDelta, st.sampled_from(["hm", ""])),
    st.builds(
        ToolCallDelta,
        st.integers(-1, 2),
        st.sampled_from([None, "call_a", "call_b"]),
        st.sampled_from(NAMES),
        st.sampled_from(PIECES),
    ),
    st.builds(Finished, st.sampled_from(["stop", "length", "tool_calls", "content_filter", "?"])),
    st.builds(
        UsageReported,
        st.builds(
            Usage,
            prompt=st.integers(0, 9),
            completion=st.integers(0, 9),
            cached=st.just(3),
            reasoning=st.none(),
        ),
    ),
    st.just(Failed({"message": "late"})),
)
FAILURE = Failure(status=503, type="api_error", message="the node is gone")
BODY = codex()


def written(
    events: list[CompletionEvent], *, fails: bool = False, opens: bool = True
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All that a writer makes of these, and its answer."""
    writer = ResponsesWriter(response_id="resp_1", model="m", created_at=7, request=BODY)
    out = writer.open() if opens else []
    for event in events:
        out += writer.take(event)
    out += writer.fail(FAILURE) if fails else writer.close()
    return out, writer.answer()


@given(st.lists(EVENTS, max_size=12), st.booleans(), st.booleans())
def test_streams_keep_to_the_grammar_and_fold_into_the_answer(
    events: list[CompletionEvent], fails: bool, opens: bool
) -> None:
    """Cut short at every point: order, numbers, indices, and pieces that come to the whole."""
    for cut in range(len(events) + 1):
        out, answer = written(events[:cut], fails=fails, opens=opens)
        grammar = Grammar()
        for event in out:
            grammar.take(event)

        assert grammar.ended
        assert grammar.response == answer
        assert grammar.output == answer["output"]


@given(st.lists(EVENTS, max_size=12), st.booleans())
@settings(max_examples=50)
def test_the_sdk_understands_every_event(events: list[CompletionEvent], fails: bool) -> None:
    """No required field is missing, none has another type."""
    out, answer = written(events, fails=fails)

    for event in out:
        check_event(event)
    check_answer(answer)


@given(st.lists(EVENTS, max_size=12), st.booleans())
def test_nothing_that_was_said_is_lost(events: list[CompletionEvent], fails: bool) -> None:
    """Text and thoughts come out as they went in, whatever stands between them."""
    out, _ = written(events, fails=fails)

    for kind, name in (
        (TextDelta, "response.output_text.delta"),
        (ReasoningDelta, "response.reasoning_summary_text.delta"),
    ):
        said = "".join(one.text for one in events if isinstance(one, kind))
        assert "".join(event["delta"] for event in out if event["type"] == name) == said


@given(st.lists(EVENTS, max_size=12))
def test_the_same_answer_is_the_same_bytes(events: list[CompletionEvent]) -> None:
    """Ids follow from the answer's own."""
    assert dumps(written(events)) == dumps(written(events))


@given(st.lists(EVENTS, max_size=6), st.lists(EVENTS, max_size=4), st.booleans())
def test_nothing_follows_the_end(
    events: list[CompletionEvent], late: list[CompletionEvent], fails: bool
) -> None:
    """One end, whatever comes after it; the answer stays as it was."""
    writer = ResponsesWriter(response_id="resp_1", model="m", created_at=7, request=BODY)
    for event in events:
        writer.take(event)
    last = (writer.fail(FAILURE) if fails else writer.close())[-1]
    before = dumps(last)

    assert [made for event in late for made in writer.take(event)] == []
    assert writer.open() + writer.close() + writer.fail(FAILURE) == []
    assert dumps(last) == before
