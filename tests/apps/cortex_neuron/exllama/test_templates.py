"""A conversation becomes the text that its model was taught, or is refused in words."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest, PreflightFailed
from cortex_neuron.exllama.templates import ChatTemplate, read_options

PLAIN = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
TOOLS = (
    "{% if tools %}{{ tools | tojson }};{% endif %}{% for m in messages %}"
    "{{ m.role }}: {{ m.content }}{% for c in m.tool_calls %}"
    "{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}"
    "{% endfor %}){% endfor %};{% endfor %}"
)
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('the system speaks first') }}{% endif %}{{ m.role }}: {{ m.content }}\n"
    "{% endfor %}"
)
PARTS = (
    "{% for m in messages %}{% for p in m['content'] | list %}"
    "{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %};{% endfor %}"
)
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
USER = {"role": "user", "content": "Hello."}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "function", "name", "arguments", "text", "tool_calls"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


def template(*sources: str, **named: str) -> ChatTemplate:
    """A template, and one for tools where two are given."""
    return ChatTemplate(dict(zip(("default", "tool_use"), sources, strict=False)), named=named)


def refusal(chat: ChatTemplate, messages: Any, **more: Any) -> InvalidRequest:
    """How a conversation is refused."""
    with pytest.raises(InvalidRequest) as refused:
        chat.render(messages, **more)
    return refused.value


def test_a_conversation_is_rendered_as_the_model_was_taught() -> None:
    """With the model's own special tokens, and its turn opened."""
    chat = template(PLAIN, bos_token="<s>", eos_token="</s>")

    assert chat.render([USER]) == "<s>[user] Hello.</s>\n[assistant]"
    assert chat.render([USER], add_generation_prompt=False) == "<s>[user] Hello.</s>\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ""),
        ("a", "a"),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([{"type": "refusal", "refusal": "No."}], "No."),
    ],
)
def test_a_content_is_text_whatever_its_form(content: Any, text: str) -> None:
    """Null and parts too, for templates that know text alone or parts alone."""
    messages = [{"role": "user", "content": content}]

    assert template(PLAIN).render(messages) == f"[user] {text}\n[assistant]"
    assert template(PARTS).render(messages) == f"{text};"


def test_a_template_that_asks_whether_a_content_is_text_gets_text() -> None:
    """It goes through parts only where there are some."""
    both = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    chat = template(
        both + "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}"
    )

    assert chat.render([{"role": "user", "content": [{"type": "text", "text": "a"}]}]) == "a"


@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"type": "image_url", "image_url": {"url": "data:"}}, "vision_unsupported"),
        ({"type": "input_audio"}, "audio_unsupported"),
        ({"type": "file"}, "invalid_request_body"),
        ({"type": "text"}, "invalid_request_body"),
        ("a", "invalid_request_body"),
    ],
)
def test_what_is_no_text_is_refused(part: Any, code: str) -> None:
    """It is never left out in silence."""
    refused = refusal(template(PLAIN), [{"role": "user", "content": [part]}])

    assert (refused.code, refused.param) == (code, "messages")


def test_arguments_of_a_call_are_values() -> None:
    """On the wire they are JSON text; a template that goes through them sees them."""
    call = {"id": "1", "function": {"name": "clock", "arguments": '{"zone": "UTC"}'}}
    cut = {"id": "2", "function": {"name": "clock", "arguments": '{"zone'}}
    said = {"role": "assistant", "content": None, "tool_calls": [call, cut]}

    text = template(TOOLS).render([said])

    assert text == 'assistant: clock(zone=UTC)clock(invalid_json={"zone);'
    assert call["function"] == {"name": "clock", "arguments": '{"zone": "UTC"}'}


def test_no_calls_are_none() -> None:
    """Templates take a list for calls, even an empty one."""
    asks = "{% for m in messages %}{{ 'calls' if 'tool_calls' in m else m.content }}{% endfor %}"
    said = {"role": "assistant", "content": "Hi.", "tool_calls": []}

    assert template(asks).render([said]) == "Hi."


def test_tools_reach_the_template() -> None:
    """As they came; none are none."""
    chat = template(TOOLS)

    assert chat.knows_tools
    assert chat.render([USER], tools=[CLOCK]) == f"{json.dumps([CLOCK])};user: Hello.;"
    assert chat.render([USER], tools=[]) == "user: Hello.;"


def test_a_template_of_its_own_for_tools_is_used_with_tools() -> None:
    """And the other one without."""
    chat = template(PLAIN, TOOLS)

    assert chat.knows_tools
    assert chat.render([USER]).startswith("[user]")
    assert chat.render([USER], tools=[CLOCK]).startswith("[{")


def test_a_template_that_gives_tools_a_default_knows_them() -> None:
    """It sets what it asks for, where nobody else did."""
    default = "{% if not tools is defined %}{% set tools = none %}{% endif %}"
    chat = template(default + "{% if tools is not none %}{{ tools | length }}{% endif %}")

    assert chat.knows_tools
    assert chat.render([USER], tools=[CLOCK]) == "1"


def test_a_template_may_know_no_tools() -> None:
    """Whoever requires a call of such a model is told so elsewhere."""
    assert not template(PLAIN).knows_tools


def test_a_developer_is_the_system() -> None:
    """Unless the template knows developers."""
    messages = [{"role": "developer", "content": "Be brief."}]
    knows = "{% for m in messages %}{{ 'dev' if m.role == 'developer' else 'sys' }}{% endfor %}"
    speaks = "{% set developer_preamble = 1 %}" + PLAIN

    assert template(PLAIN).render(messages).startswith("[system] Be brief.")
    assert template(speaks).render(messages).startswith("[system] Be brief.")
    assert template(knows).render(messages) == "dev"


def test_what_the_system_says_is_gathered_where_the_template_wants_it_so() -> None:
    """Only there: elsewhere it stays where it stands."""
    messages = [{"role": "system", "content": "A"}, USER, {"role": "system", "content": "B"}]

    assert template(STRICT).render(messages) == "system: A\n\nB\nuser: Hello.\n"
    assert template(TOOLS).render(messages) == "system: A;user: Hello.;system: B;"


def test_a_refusal_of_the_template_is_told_in_its_words() -> None:
    """The first one: what was tried then is nothing that the client sent."""
    never = "{{ raise_exception(messages | length ~ ' are too many') }}"
    refused = refusal(template(never), [USER, {"role": "system", "content": "B"}, USER])

    assert (refused.status, refused.code) == (400, "template_render_failed")
    assert "3 are too many" in refused.message


@pytest.mark.parametrize(
    "source",
    ["{{ 'a' * 10**9 }}", "{{ missing.x }}", "{{ 1 / 0 }}", "{% for %}", "{{ x", "{{ x | nope }}"],
)
def test_a_template_that_fails_refuses(source: str) -> None:
    """Whatever fails, and whether it fails before or after it was compiled."""
    refused = refusal(template(source), [USER])

    assert refused.code == "template_render_failed"
    assert len(refused.message) < 700


def test_a_template_that_cannot_be_compiled_says_so_before() -> None:
    """The model may still complete text."""
    assert template("{% for %}").problem
    assert template("{{ 1 / 0 }}").problem is None
    assert ChatTemplate({}, named={}).problem


def test_a_model_without_template_does_not_chat() -> None:
    """Its makers meant it to complete text."""
    refused = refusal(ChatTemplate({}, named={}), [USER])

    assert (refused.code, refused.param) == ("wrong_modality", "messages")
    assert "/v1/completions" in refused.message


def test_the_request_may_tell_the_template_more() -> None:
    """Its own words win over the special tokens, and nothing wins over the conversation."""
    chat = template("{{ enable_thinking }}{{ bos_token }}{{ messages | length }}", bos_token="<s>")

    assert chat.render([USER], options={"enable_thinking": False, "bos_token": "!"}) == "False!1"
    assert refusal(chat, [USER], options={"messages": []}).param == "chat_template_kwargs"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False}),
        (
            {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}},
            {"reasoning_effort": "none", "enable_thinking": True},
        ),
    ],
)
def test_what_a_body_tells_the_template(body: dict[str, Any], expected: dict[str, Any]) -> None:
    """The effort is a word of the request's, and no effort is no thoughts."""
    assert read_options(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        {"reasoning_effort": 5},
        {"chat_template_kwargs": [1]},
        {"chat_template_kwargs": {"tools": 1}},
    ],
)
def test_what_a_body_cannot_tell_the_template(body: dict[str, Any]) -> None:
    """It is refused by its name."""
    with pytest.raises(InvalidRequest) as refused:
        read_options(body)

    assert refused.value.param in body


@pytest.mark.parametrize(
    ("source", "behind"),
    [(PLAIN, "</s>\n"), (STRICT, "\n"), ("{{ messages[0].content }}", ""), ("{{ 1 / 0 }}", "")],
)
def test_what_ends_an_answer_stands_behind_one(source: str, behind: str) -> None:
    """So the engine knows it though no configuration says it."""
    assert template(source, eos_token="</s>").behind_answer() == behind


def test_the_clock_is_the_machine_s() -> None:
    """Templates tell models the date."""
    chat = ChatTemplate(
        {"default": "{{ strftime_now('%Y') }}"},
        named={},
        clock=lambda: datetime(2031, 1, 1),  # noqa: DTZ001  # as a template has it
    )

    assert chat.render([USER]) == "2031"


def write(folder: Path, name: str, value: Any) -> None:
    """Write a file of a model's."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def test_the_first_place_that_has_a_template_counts(tmp_path: Path) -> None:
    """A file of its own, then JSON of its own, then the tokenizer's configuration."""
    config = {"chat_template": "third {{ eos_token }}", "eos_token": {"content": "</s>"}}
    write(tmp_path, "tokenizer_config.json", config)
    assert ChatTemplate.from_folder(tmp_path).render([USER]) == "third </s>"

    write(tmp_path, "chat_template.json", {"chat_template": "second"})
    assert ChatTemplate.from_folder(tmp_path).render([USER]) == "second"

    write(tmp_path, "chat_template.jinja", "first")
    write(tmp_path, "additional_chat_templates/tool_use.jinja", "first with {{ tools | length }}")
    chat = ChatTemplate.from_folder(tmp_path)
    assert chat.render([USER]) == "first"
    assert chat.render([USER], tools=[CLOCK]) == "first with 1"


@pytest.mark.parametrize(
    "value",
    [
        [{"name": "tool_use", "template": "t{{ tools }}"}, {"name": "default", "template": "d"}],
        {"tool_use": "t{{ tools }}", "default": "d"},
    ],
)
def test_templates_may_have_names(value: Any, tmp_path: Path) -> None:
    """In a list or by name; `default` is used where nobody asks for another."""
    write(tmp_path, "tokenizer_config.json", {"chat_template": value})
    chat = ChatTemplate.from_folder(tmp_path)

    assert chat.render([USER]) == "d"
    assert chat.knows_tools


def test_a_lone_template_with_a_name_is_used(tmp_path: Path) -> None:
    """There is no other."""
    value = [{"name": "chat", "template": "c"}]
    write(tmp_path, "tokenizer_config.json", {"chat_template": value})

    assert ChatTemplate.from_folder(tmp_path).render([USER]) == "c"


@pytest.mark.parametrize("value", [5, [{"name": "a"}], [{"template": "a"}], {"a": 1}])
def test_a_broken_file_is_named(value: Any, tmp_path: Path) -> None:
    """It is not taken for a model without a template."""
    write(tmp_path, "tokenizer_config.json", {"chat_template": value})

    with pytest.raises(PreflightFailed, match=r"tokenizer_config\.json"):
        ChatTemplate.from_folder(tmp_path)


def test_an_empty_folder_has_no_template(tmp_path: Path) -> None:
    """As a base model's."""
    assert ChatTemplate.from_folder(tmp_path).source is None


@given(st.lists(json_values, max_size=3) | json_values, st.sampled_from([PLAIN, TOOLS, PARTS]))
def test_any_conversation_is_rendered_or_refused(messages: Any, source: str) -> None:
    """Nothing else is raised."""
    try:
        text = template(source).render(messages)
    except InvalidRequest:
        return
    assert isinstance(text, str)
