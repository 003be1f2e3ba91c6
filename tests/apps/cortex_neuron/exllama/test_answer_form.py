"""The form that a request wants its answers in, read or refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest
from cortex_neuron.exllama.answer_form import LONGEST, read_form
from cortex_neuron.exllama.generation import GRAMMAR_FIELDS

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "json_schema", "schema", "x"]), inner)
    ),
    max_leaves=6,
)


def schema_of(body: dict[str, Any]) -> Any:
    """The schema of the form, without what every schema is given."""
    form = read_form(body)
    assert form is not None
    schema = form.grammar["json_schema"]
    return {k: v for k, v in schema.items() if k != "x-guidance"} if schema != True else schema  # noqa: E712


@pytest.mark.parametrize(
    "body", [{}, {"response_format": None}, {"response_format": {"type": "text"}}]
)
def test_most_requests_want_none(body: dict[str, Any]) -> None:
    """Plain text is no form."""
    assert read_form(body) is None


@pytest.mark.parametrize(
    ("body", "schema"),
    [
        ({"response_format": {"type": "json_object"}}, {"type": "object"}),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}}, SCHEMA),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": True}}}, True),
        ({"guided_json": SCHEMA}, SCHEMA),
        ({"guided_json": '{"type": "string"}'}, {"type": "string"}),
    ],
)
def test_json_has_a_schema(body: dict[str, Any], schema: Any) -> None:
    """Any object's, where only JSON is asked for."""
    assert schema_of(body) == schema


@pytest.mark.parametrize(
    ("body", "lark"),
    [
        ({"guided_regex": "[a-c]+/x"}, r"start: /[a-c]+\/x/"),
        ({"guided_choice": ["yes", 'n"o']}, r'start: "yes" | "n\"o"'),
        ({"guided_grammar": 'start: "x"'}, 'start: "x"'),
    ],
)
def test_other_forms_are_grammars(body: dict[str, Any], lark: str) -> None:
    """In llguidance's kind of Lark."""
    form = read_form(body)

    assert form is not None
    assert form.param in body
    assert form.grammar == {"lark_grammar": lark}


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": "json"},
        {"response_format": {}},
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": "x"}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"schema": {"x": "y" * LONGEST}},
            }
        },
        {"guided_json": "{"},
        {"guided_json": "5"},
        {"guided_json": [1]},
        {"guided_regex": 5},
        {"guided_regex": ""},
        {"guided_choice": []},
        {"guided_choice": "yes"},
        {"guided_choice": ["yes", 1]},
        {"guided_choice": ["x"] * 1001},
        {"guided_grammar": {}},
    ],
)
def test_what_is_no_form_is_refused(body: dict[str, Any]) -> None:
    """It is never passed over: whoever asks for JSON reads JSON."""
    with pytest.raises(InvalidRequest) as refused:
        read_form(body)

    assert refused.value.param in body


def test_two_forms_are_one_too_many() -> None:
    """Which of them is meant, nobody can know."""
    with pytest.raises(InvalidRequest) as refused:
        read_form({"guided_json": SCHEMA, "guided_regex": "x"})

    assert refused.value.param == "guided_regex"


def test_a_schema_too_deep_to_be_written_is_refused() -> None:
    """Its depth is the client's."""
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"not": deep}

    with pytest.raises(InvalidRequest, match="deeply"):
        read_form({"guided_json": deep})


@given(st.dictionaries(st.sampled_from(sorted(GRAMMAR_FIELDS)), json_values, max_size=2))
def test_any_body_has_a_form_or_is_refused(body: dict[str, Any]) -> None:
    """Nothing else is raised, and what asks for a form gets one."""
    try:
        form = read_form(body)
    except InvalidRequest:
        return
    asked = {k for k, v in body.items() if v is not None and v != {"type": "text"}}
    assert (form is not None) == bool(asked) or body.get("response_format", {}).get(
        "type"
    ) == "text"
