"""What a model's template and tokens show of how it thinks and calls tools."""

import pytest

from cortex_dialects.completion_events import ReasoningDelta, TextDelta, ToolCallDelta
from cortex_dialects.splitting import AnswerEvent, AnswerSplitter, ThinkMarkers
from cortex_neuron.exllama.answer_style import AnswerStyle
from cortex_neuron.exllama.templates import ChatTemplate
from tests.apps.cortex_neuron.exllama.chats import TEMPLATES
from tests.apps.cortex_neuron.exllama.vocabularies import bytes_vocabulary, pieces_vocabulary

THINK = ThinkMarkers("<think>", "</think>")
VOCABULARY = bytes_vocabulary()


def style(template: str) -> AnswerStyle:
    """The style of a model with this template."""
    return AnswerStyle.of(ChatTemplate({"default": TEMPLATES[template]}, named={}), VOCABULARY)


def events(splitter: AnswerSplitter, text: str) -> list[AnswerEvent]:
    """What an answer is split into."""
    return [*splitter.feed(text), *splitter.finish()]


@pytest.mark.parametrize(
    ("template", "dialect", "names_first", "forced"),
    [
        ("hermes", "hermes", False, "hermes"),
        ("mistral", "mistral", False, "mistral"),
        ("mistral_names", "mistral", True, "mistral"),
        ("llama3", "llama3", False, "llama3"),
        ("unknown", None, False, "llama3"),
        ("none", None, False, "llama3"),
    ],
)
def test_a_template_shows_how_tools_are_called(
    template: str, dialect: str | None, names_first: bool, forced: str
) -> None:
    """Where it shows nothing that is known, a grammar asks for bare objects."""
    shown = style(template)

    assert (shown.dialect, shown.names_first, shown.call_dialect) == (dialect, names_first, forced)


def test_thoughts_have_the_markers_that_the_model_has() -> None:
    """In its template, or among its tokens."""
    bare = AnswerStyle.of(ChatTemplate({}, named={}), pieces_vocabulary())
    thinking = ChatTemplate({"default": "{% if x %}[THINK]{% endif %}"}, named={})

    assert style("none").markers == (THINK,)
    assert bare.markers == ()
    assert AnswerStyle.of(thinking, pieces_vocabulary()).markers == (
        ThinkMarkers("[THINK]", "[/THINK]"),
    )


def test_special_tokens_are_hidden_unless_they_are_read() -> None:
    """A marker of calls must come through; an end of turn must not."""
    assert style("mistral").hidden == {0, 1, 2}
    assert style("hermes").hidden == {0, 1, 2, 3}


def test_the_prompt_may_have_begun_the_thoughts() -> None:
    """Or ended them; a marker that somebody only speaks about does neither."""
    shown = style("hermes")

    assert shown.opened("<|im_start|>assistant\n<think>\n") == THINK
    assert shown.opened("What is <think>?") is None
    assert shown.closed("<think>\n\n</think>\n\n")
    assert not shown.closed("<think>")
    assert not AnswerStyle.of(ChatTemplate({}, named={}), pieces_vocabulary()).closed("a")


def test_an_answer_is_split_by_what_the_model_was_taught() -> None:
    """Thoughts that the prompt began, and a call of a tool that was offered."""
    call = '<tool_call>{"name": "clock"}</tool_call>'
    splitter = style("hermes").splitter("<think>", {"clock": None}, forced=False, id_prefix="c")

    assert events(splitter, f"Hm.</think>{call}") == [
        ReasoningDelta("Hm."),
        ToolCallDelta(0, "c0", "clock", "{}"),
    ]


def test_bare_objects_are_calls_where_a_grammar_asked_for_them() -> None:
    """Elsewhere such an answer is the JSON that it is."""
    text = '{"name": "clock", "parameters": {}}'
    shown = style("unknown")
    forced = shown.splitter("", {"clock": None}, forced=True, id_prefix="c")
    free = shown.splitter("", {"clock": None}, forced=False, id_prefix="c")

    assert events(forced, text) == [ToolCallDelta(0, "c0", "clock", "{}")]
    assert events(free, text) == [TextDelta(text)]


def test_without_tools_nothing_is_a_call() -> None:
    """Whoever offered none reads what the model wrote."""
    text = '<tool_call>{"name": "clock"}</tool_call>'
    splitter = style("hermes").splitter("", {}, forced=False, id_prefix="c")

    assert events(splitter, text) == [TextDelta(text)]
