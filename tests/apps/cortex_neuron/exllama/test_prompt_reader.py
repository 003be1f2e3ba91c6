"""Chats become prompts, and answers keep to what was asked of them."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest
from cortex_dialects import CompletionFold
from cortex_neuron.exllama.conversation import ChatWriter
from cortex_neuron.exllama.prompt_reader import ChatPrompt
from cortex_neuron.exllama.text_stream import TextStream
from tests.apps.cortex_neuron.exllama.chats import CLOCK, TEMPLATES, USER, WEATHER, reader
from tests.apps.cortex_neuron.exllama.masked import allowed, takes
from tests.apps.cortex_neuron.exllama.vocabularies import bytes_vocabulary

VOCABULARY = bytes_vocabulary()
READERS = {name: reader(name) for name in TEMPLATES}
TOOLS = [WEATHER, CLOCK]
NAMED = {"type": "function", "function": {"name": "get_weather"}}
ARGUMENTS: dict[str, list[dict[str, str]]] = {
    "get_weather": [{"city": "Oslo"}, {"city": "Rome"}],
    "clock": [{}],
}
HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "function", "name", "parameters", "text"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


def chat(template: str, **body: Any) -> ChatPrompt:
    """How a chat is read by a model with this template."""
    return READERS[template].chat({"messages": [USER], **body})


def refusal(template: str, **body: Any) -> InvalidRequest:
    """How a chat is refused."""
    with pytest.raises(InvalidRequest) as refused:
        chat(template, **body)
    return refused.value


def answer(template: str, prompt: ChatPrompt, random: Random) -> dict[str, Any] | None:
    """A whole answer of tokens drawn from those allowed, None where it does not end soon."""
    assert prompt.grammar is not None
    mask, text = prompt.grammar.mask(), TextStream(VOCABULARY, hidden=READERS[template].hidden)
    writer = ChatWriter(HEAD, 0, VOCABULARY, prompt.splitter("c"), one_call=prompt.one_call)
    frames = [writer.open()]
    for _ in range(150):
        may = sorted(allowed(mask, VOCABULARY))
        ends = [token for token in may if token in VOCABULARY.eos_ids]
        if writer.enough or (ends and (len(ends) == len(may) or random.random() < 0.5)):
            break
        # Closing what is open comes to an end sooner than anything else.
        soon = [
            token for token in may if VOCABULARY.piece(token) in (b"}", b'"', b"]", b"</think>")
        ]
        token = random.choice(soon or [one for one in may if one not in ends])
        mask.accept(token)
        frames.append(writer.say(text.feed(token)))
    else:
        return None
    frames += [writer.say(text.finish()), writer.close(cut=False, stopped_by=None)]
    fold = CompletionFold()
    for frame in frames:
        fold.feed(frame)
    choice: dict[str, Any] = fold.answer()["choices"][0]
    return choice


def test_a_chat_is_rendered_and_tokenised_once() -> None:
    """Its special tokens are tokens, and nothing is put before what the template wrote."""
    prompt = chat("none")

    assert prompt.text == "<|im_start|>user\nHello.<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.tokens == tuple(VOCABULARY.encode_chat(prompt.text))
    assert prompt.tokens.count(1) == 2
    assert prompt.grammar is None


def test_counting_is_reading_without_the_grammar() -> None:
    """What is wrong with a schema is no matter of the prompt's length."""
    body = {"messages": [USER], "tools": TOOLS, "guided_regex": "("}

    assert READERS["hermes"].count(body) == len(chat("hermes", tools=TOOLS).tokens)


def test_what_ends_a_turn_ends_an_answer() -> None:
    """Though no configuration of the model says it."""
    assert READERS["none"].stop_tokens == {0, 2}
    assert 1 in READERS["none"].hidden


def test_tools_are_shown_unless_none_shall_be_called() -> None:
    """Then the model cannot even speak of them."""
    assert "get_weather" in chat("hermes", tools=TOOLS).text
    assert "get_weather" not in chat("hermes", tools=TOOLS, tool_choice="none").text
    assert "clock" not in chat("hermes", tools=TOOLS, tool_choice=NAMED).text


@pytest.mark.parametrize("template", sorted(TEMPLATES.keys() - {"none"}))
@settings(max_examples=12)
@given(random=st.randoms(use_true_random=False), thinks=st.sampled_from([None, True, False]))
def test_a_required_call_is_a_call(template: str, random: Random, thinks: bool | None) -> None:
    """In every dialect, after thoughts or without, with arguments that the schema allows."""
    options = {} if thinks is None else {"enable_thinking": thinks}
    prompt = chat(template, tools=TOOLS, tool_choice="required", chat_template_kwargs=options)
    said = answer(template, prompt, random)
    if said is None:
        return
    calls = said["message"]["tool_calls"]

    assert said["finish_reason"] == "tool_calls"
    assert said["message"]["content"] == ""
    assert calls
    for call in calls:
        arguments = json.loads(call["function"]["arguments"])
        assert arguments in ARGUMENTS[call["function"]["name"]]
    if thinks is False:
        assert "reasoning_content" not in said["message"]


@settings(max_examples=12)
@given(random=st.randoms(use_true_random=False))
def test_a_named_tool_is_called_once(random: Random) -> None:
    """That one, and no other."""
    said = answer("hermes", chat("hermes", tools=TOOLS, tool_choice=NAMED), random)
    if said is None:
        return

    assert [call["function"]["name"] for call in said["message"]["tool_calls"]] == ["get_weather"]


@settings(max_examples=12)
@given(random=st.randoms(use_true_random=False), thinks=st.sampled_from([None, True, False]))
def test_a_form_is_kept_to_after_the_thoughts(random: Random, thinks: bool | None) -> None:
    """What a model thinks has no form."""
    schema = WEATHER["function"]["parameters"]
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    options = {} if thinks is None else {"enable_thinking": thinks}
    prompt = chat("none", response_format=form, chat_template_kwargs=options)
    said = answer("none", prompt, random)
    if said is None:
        return

    assert json.loads(said["message"]["content"]) in ({"city": "Oslo"}, {"city": "Rome"})
    assert said["finish_reason"] == "stop"
    if thinks:
        assert prompt.text.endswith("<think>\n")


def test_tools_and_a_form_are_either() -> None:
    """The model may call, or answer in the form; nothing else."""
    prompt = chat("hermes", tools=[CLOCK], guided_choice=["yes", "no"])
    assert prompt.grammar is not None
    call = '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'

    assert takes(prompt.grammar, VOCABULARY, "yes")
    assert takes(prompt.grammar, VOCABULARY, call)
    assert takes(prompt.grammar, VOCABULARY, f"{call}\n{call}")
    assert takes(prompt.grammar, VOCABULARY, f"<think>Hm.</think>\n\n{call}")
    assert not takes(prompt.grammar, VOCABULARY, "maybe")
    assert not takes(prompt.grammar, VOCABULARY, f"yes{call}")


def test_one_call_at_a_time_is_one_call() -> None:
    """By the grammar where there is one, by the end of the answer elsewhere."""
    more: dict[str, Any] = {"tools": [CLOCK], "parallel_tool_calls": False}
    required = chat("llama3", **more, tool_choice="required")
    call = '{"name": "clock", "parameters": {}}'
    several = chat("llama3", tools=[CLOCK], tool_choice="required")
    assert required.grammar is not None
    assert several.grammar is not None

    assert chat("llama3", **more).one_call
    assert not takes(required.grammar, VOCABULARY, f"{call}; {call}")
    assert takes(several.grammar, VOCABULARY, f"{call}; {call}")


def test_a_text_completion_has_forms_too() -> None:
    """Without thoughts: nobody asked for any."""
    grammar = READERS["none"].text_grammar({"guided_choice": ["yes"]})
    assert grammar is not None

    assert takes(grammar, VOCABULARY, "yes")
    assert not takes(grammar, VOCABULARY, "<think>Hm.</think>yes")
    assert READERS["none"].text_grammar({}) is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools.0"),
        ({"tools": [CLOCK, CLOCK]}, "tools.1"),
        ({"tools": [{"type": "web_search"}]}, "tools.0"),
        ({"tools": [{"function": {"name": ""}}]}, "tools.0"),
        ({"tools": [{"function": {"name": "x", "parameters": []}}]}, "tools.0"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED, "tools": [CLOCK]}, "tool_choice"),
        ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
        ({"tools": [CLOCK], "tool_choice": "required", "min_tokens": 5}, "min_tokens"),
        ({"messages": []}, "messages"),
        ({"chat_template_kwargs": 5}, "chat_template_kwargs"),
    ],
)
def test_what_cannot_be_meant_is_refused(body: dict[str, Any], param: str) -> None:
    """By its name, before anything is generated."""
    assert refusal("hermes", **body).param == param


def test_a_schema_that_cannot_be_used_is_refused() -> None:
    """Where it has to be kept to; elsewhere the model reads it and nobody else."""
    strange = {"function": {"name": "x", "parameters": {"type": "object", "if": {}}}}

    assert refusal("hermes", tools=[strange], tool_choice="required").param == "tools"
    assert chat("hermes", tools=[strange]).grammar is None


def test_a_call_cannot_be_required_of_a_model_that_knows_no_tools() -> None:
    """Its template has no place to show them."""
    refused = refusal("none", tools=TOOLS, tool_choice="required")

    assert (refused.code, refused.param) == ("tools_unsupported", "tool_choice")
    assert chat("none", tools=TOOLS).grammar is None


@given(
    st.dictionaries(
        st.sampled_from(
            ["messages", "tools", "tool_choice", "parallel_tool_calls", "response_format"]
        ),
        json_values,
        max_size=3,
    ),
    st.booleans(),
)
def test_any_body_is_read_or_refused(body: dict[str, Any], usable: bool) -> None:
    """Nothing else is raised."""
    start: dict[str, Any] = {"messages": [USER], "tools": [CLOCK]} if usable else {}
    try:
        prompt = READERS["hermes"].chat({**start, **body})
    except InvalidRequest:
        return
    assert prompt.tokens
