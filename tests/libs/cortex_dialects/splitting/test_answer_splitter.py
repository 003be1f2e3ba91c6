"""An engine's text, whole: thoughts, answer and calls."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects.completion_events import ReasoningDelta, TextDelta, ToolCallDelta
from cortex_dialects.splitting import THINK_MARKERS, AnswerSplitter, ReasoningSplitter
from tests.libs.cortex_dialects.splitting.answers import cuts, pieces, split, tool_splitter

CALL = '<tool_call>{"name": "get_time"}</tool_call>'


def splitter(*, opened: bool = False) -> AnswerSplitter:
    """One that looks for all markers and for calls between tags."""
    return AnswerSplitter(ReasoningSplitter(THINK_MARKERS, open=opened), tool_splitter("hermes"))


def test_thoughts_text_and_calls_come_in_order() -> None:
    """A call that a thought only speaks about is a thought."""
    answer = splitter(opened=True)

    events = split(answer, [f"Use {CALL}?\n</think>\n\nOne moment.\n\n{CALL}\n"])

    assert events == [
        ReasoningDelta(f"Use {CALL}?\n"),
        TextDelta("One moment.\n\n"),
        ToolCallDelta(0, "call_0", "get_time", "{}"),
    ]
    assert answer.called_tools


def test_a_call_may_follow_the_thoughts_at_once() -> None:
    """No blank text comes between."""
    assert split(splitter(), [f"<think>Hm.</think>\n\n{CALL}"]) == [
        ReasoningDelta("Hm."),
        ToolCallDelta(0, "call_0", "get_time", "{}"),
    ]


def test_without_tools_their_markup_is_text() -> None:
    """Whoever offered none is shown what the model wrote."""
    answer = AnswerSplitter(ReasoningSplitter(THINK_MARKERS, open=False), None)

    assert split(answer, [f"<think>Hm.</think>{CALL}"]) == [ReasoningDelta("Hm."), TextDelta(CALL)]
    assert not answer.called_tools


def test_without_thoughts_their_markup_is_text() -> None:
    """A model that does not think may still write the word."""
    answer = AnswerSplitter(None, tool_splitter("hermes"))

    assert split(answer, ["", "<think>"]) == [TextDelta("<think>")]
    assert not answer.called_tools


def test_what_was_held_back_comes_at_the_end() -> None:
    """The beginning of a think marker may be the beginning of a call's marker too."""
    answer = splitter()

    assert answer.feed("<t") == []
    assert answer.finish() == [TextDelta("<t")]


@given(
    st.lists(
        st.sampled_from(
            [
                "<think>",
                "</think>",
                CALL,
                "<tool_call>",
                "</tool_call>",
                "<t",
                "\n",
                " ",
                "a",
                '"',
                "{",
            ]
        ),
        max_size=14,
    ).map("".join),
    cuts,
    st.booleans(),
)
def test_any_cut_says_the_same(text: str, at: list[int], opened: bool) -> None:
    """An unstreamed answer is the streamed one, fed at once."""
    whole = split(splitter(opened=opened), [text])

    assert split(splitter(opened=opened), pieces(text, at)) == whole
    assert split(splitter(opened=opened), text) == whole
