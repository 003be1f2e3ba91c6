"""Thoughts come before the answer, between markers."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects.completion_events import ReasoningDelta, TextDelta
from cortex_dialects.splitting import THINK_MARKERS, ReasoningSplitter, ThinkMarkers, opened_by
from tests.libs.cortex_dialects.splitting.answers import cuts, pieces, split, text_of

HALVES = [half for pair in THINK_MARKERS for half in pair]
CUT = ["<", "</", "think", ">", "[", "\n", " ", "a", "é🙂", "<th", "</thi", "<|START", "x < y"]
hostile = st.lists(st.sampled_from([*HALVES, *CUT]), max_size=12).map("".join)


def splitter(*, opened: bool = False) -> ReasoningSplitter:
    """One that knows all markers."""
    return ReasoningSplitter(THINK_MARKERS, open=opened)


@pytest.mark.parametrize("markers", THINK_MARKERS)
def test_thoughts_and_answer_are_told_apart(markers: ThinkMarkers) -> None:
    """The newlines that templates write around markers belong to neither."""
    answer = f"{markers.open}\nHm.\n{markers.close}\n\nYes.\n"

    for fed in ([answer], list(answer)):
        assert split(splitter(), fed) == [ReasoningDelta("Hm.\n"), TextDelta("Yes.\n")]


@pytest.mark.parametrize("markers", THINK_MARKERS)
def test_thoughts_that_the_prompt_opened_end_at_the_close_marker(markers: ThinkMarkers) -> None:
    """The model never says the open marker."""
    answer = f"\nHm.{markers.close}Yes."

    assert split(splitter(opened=True), [answer]) == [ReasoningDelta("Hm."), TextDelta("Yes.")]


@pytest.mark.parametrize("opened", [True, False])
def test_thoughts_without_an_end_are_all_thoughts(opened: bool) -> None:
    """Tokens ran out while the model thought, in the middle of a marker even."""
    answer = "Hm. </thi" if opened else "<think>Hm. </thi"

    assert split(splitter(opened=opened), [answer]) == [ReasoningDelta("Hm. </thi")]


def test_only_its_own_marker_ends_a_thought() -> None:
    """A thought may speak about other markers."""
    answer = "<think>Is </thought> the end?</think>No."

    assert split(splitter(), [answer]) == [
        ReasoningDelta("Is </thought> the end?"),
        TextDelta("No."),
    ]


def test_an_answer_may_speak_about_the_markers() -> None:
    """Once something visible was said, markers are text."""
    answer = "Write <think> and </think>."

    assert split(splitter(), [answer]) == [TextDelta(answer)]


def test_a_model_may_think_twice_before_it_answers() -> None:
    """Blank text between thoughts is no answer."""
    answer = " \n<think>a</think>\n\n <think>\nb</think>\nc"

    assert split(splitter(), [answer]) == [
        ReasoningDelta("ab"),
        TextDelta("c"),
    ]


def test_no_thoughts_are_no_events() -> None:
    """Templates that turn thinking off write an empty pair."""
    assert split(splitter(), ["<think>\n\n</think>\n\n"]) == []


def test_blank_text_alone_is_text() -> None:
    """Nothing is lost where no marker comes."""
    assert split(splitter(), [" \n"]) == [TextDelta(" \n")]


def test_nothing_is_held_back_longer_than_a_marker_may_come() -> None:
    """The beginning of a marker waits, and goes out as soon as it is none."""
    reader = splitter(opened=True)

    assert reader.feed("a </thi") == [ReasoningDelta("a ")]
    assert reader.feed("s") == [ReasoningDelta("</this")]


def test_endless_blank_text_is_not_kept() -> None:
    """Memory is bounded: at some point blank text is the answer, whatever follows."""
    answer = " " * 5000 + "<think>a</think>"

    assert split(splitter(), [answer]) == split(splitter(), answer) == [TextDelta(answer)]


@given(hostile, cuts, st.booleans())
def test_any_cut_says_the_same(text: str, at: list[int], opened: bool) -> None:
    """The whole text at once, in pieces and one character at a time."""
    whole = split(splitter(opened=opened), [text])

    assert split(splitter(opened=opened), pieces(text, at)) == whole
    assert split(splitter(opened=opened), text) == whole


def told_apart(text: str, opened: bool) -> tuple[str, str]:
    """Thoughts and text, by the rules and with the whole text at hand."""
    thoughts = ""
    closes = [pair.close for pair in THINK_MARKERS] if opened else []
    while True:
        if closes:
            text = text.lstrip("\r\n")
            found = re.search("|".join(map(re.escape, closes)), text)
            if found is None:
                return thoughts + text, ""
            thoughts += text[: found.start()]
            text = text[found.end() :].lstrip("\r\n")
        visible = text.lstrip(" \t\r\n")
        pair = next((pair for pair in THINK_MARKERS if visible.startswith(pair.open)), None)
        if pair is None:
            return thoughts, text
        closes, text = [pair.close], visible.removeprefix(pair.open)


@given(hostile, st.booleans())
def test_only_markers_and_blank_text_are_taken_away(text: str, opened: bool) -> None:
    """All else comes out, as thoughts or as text."""
    events = split(splitter(opened=opened), [text])
    thoughts = "".join(event.text for event in events if isinstance(event, ReasoningDelta))

    assert (thoughts, text_of(events)) == told_apart(text, opened)


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ("<|im_start|>assistant\n<think>\n", True),
        ("<|im_start|>assistant\n[THINK]", True),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        ("What does <think> mean?<|im_end|>\n<|im_start|>assistant\n", False),
        ("", False),
    ],
)
def test_the_end_of_the_prompt_tells_who_opened(tail: str, expected: bool) -> None:
    """A marker that a user wrote opens nothing."""
    assert opened_by(tail, THINK_MARKERS) is expected
