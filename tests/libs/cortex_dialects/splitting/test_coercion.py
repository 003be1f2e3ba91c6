"""Strings become what a schema wants, where they say it unambiguously."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_dialects.splitting import coerce_arguments

CASES: list[tuple[object, Any, Any]] = [
    ({"type": "integer"}, "3", 3),
    ({"type": "integer"}, " -3\n", -3),
    ({"type": "integer"}, "3.0", "3.0"),
    ({"type": "integer"}, "007", "007"),
    ({"type": "integer"}, "1_000", "1_000"),
    ({"type": "integer"}, "٣", "٣"),
    ({"type": "integer"}, "9223372036854775807", 2**63 - 1),
    ({"type": "integer"}, "9223372036854775808", "9223372036854775808"),
    ({"type": "integer"}, "three", "three"),
    ({"type": "integer"}, True, True),
    ({"type": "number"}, "3", 3),
    ({"type": "number"}, "-2.5e3", -2500.0),
    ({"type": "number"}, "1e999", "1e999"),
    ({"type": "number"}, "9223372036854775808", "9223372036854775808"),
    ({"type": "number"}, "NaN", "NaN"),
    ({"type": "boolean"}, "true", True),
    ({"type": "boolean"}, "False", False),
    ({"type": "boolean"}, "yes", "yes"),
    ({"type": "boolean"}, "1", "1"),
    ({"type": "null"}, "null", None),
    ({"type": "null"}, "None", None),
    ({"type": "null"}, "", ""),
    ({"type": "array"}, '[1, "a"]', [1, "a"]),
    ({"type": "array"}, '{"a": 1}', '{"a": 1}'),
    ({"type": "array"}, "[1", "[1"),
    ({"type": "array"}, "[" * 5000, "[" * 5000),
    ({"type": "object"}, '{"a": null}', {"a": None}),
    ({"type": "string"}, "3", "3"),
    ({"type": "string"}, 3, 3),
    ({"type": ["string", "null"]}, "null", "null"),
    ({"type": ["integer", "null"]}, "null", None),
    ({"type": ["integer", "null"]}, "3", 3),
    ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "3", 3),
    ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "3", "3"),
    ({"oneOf": [{"type": "boolean"}, {"type": ["array"]}]}, "[]", []),
    ({}, "3", "3"),
    (None, "3", "3"),
    ({"type": 7, "anyOf": 7}, "3", "3"),
    ({"anyOf": [7, {"type": {}}]}, "3", "3"),
]


@pytest.mark.parametrize(("schema", "value", "expected"), CASES)
def test_values_are_coerced_by_their_schema(schema: object, value: Any, expected: Any) -> None:
    """Mistyped values and those of the right type stay, and so do types: True is not 1."""
    coerced = coerce_arguments({"a": value}, {"properties": {"a": schema}})

    assert coerced == {"a": expected}
    assert type(coerced["a"]) is type(expected)


@pytest.mark.parametrize("schema", [None, {}, {"properties": []}, {"properties": {"b": {}}}, "x"])
def test_without_a_schema_nothing_changes(schema: Any) -> None:
    """Unknown keys and unknown schemas leave the value alone."""
    assert coerce_arguments({"a": "1"}, schema) == {"a": "1"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
types = st.sampled_from(
    ["string", "integer", "number", "boolean", "null", "array", "object", 1, None]
)


@given(
    st.dictionaries(st.sampled_from("ab"), json_values),
    json_values
    | st.fixed_dictionaries(
        {
            "properties": st.dictionaries(
                st.sampled_from("ab"),
                st.fixed_dictionaries({"type": types | st.lists(types, max_size=3)}),
            )
        }
    ),
)
def test_no_schema_breaks_it(arguments: dict[str, Any], schema: Any) -> None:
    """Keys stay, and only strings ever change."""
    coerced = coerce_arguments(arguments, schema)

    assert list(coerced) == list(arguments)
    assert all(
        coerced[key] == value for key, value in arguments.items() if not isinstance(value, str)
    )


def test_half_a_surrogate_stays_a_string() -> None:
    """What cannot be written as UTF-8 is no JSON."""
    text = "[\ud800]"

    assert coerce_arguments({"a": text}, {"properties": {"a": {"type": "array"}}}) == {"a": text}
