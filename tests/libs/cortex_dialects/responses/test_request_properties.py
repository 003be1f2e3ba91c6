"""No body, however malformed, raises anything but BadBody."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orjson import dumps

from cortex_dialects import BadBody
from cortex_dialects.responses import ResponsesWriter, to_chat
from tests.libs.cortex_dialects.responses.bodies import everything
from tests.libs.cortex_dialects.responses.sdk import check_event

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
WORDS = st.sampled_from(
    ["function", "custom", "namespace", "message", "user", "allowed_tools", "input_image", "none"]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | TEXTS | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "role", "name", "content"]) | TEXTS, inner)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(sorted(everything()))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON value."""
    found = [path] if path else []
    if isinstance(value, dict):
        inner = list(value.items())
    else:
        inner = list(enumerate(value)) if isinstance(value, list) else []
    for key, one in inner:
        found += places(one, (*path, key))
    return found


PLACES = places(everything())


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with another one at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def answered(body: dict[str, Any]) -> bool:
    """Translate a body and what repeats it; False where it was refused."""
    try:
        chat = to_chat(body)
    except BadBody:
        return False
    dumps(chat)
    writer = ResponsesWriter(response_id="resp_1", model="m", created_at=1, request=body)
    dumps(writer.open() + writer.close())
    return True


@given(st.dictionaries(FIELDS | TEXTS, JSON, max_size=6))
def test_any_object_is_translated_or_refused(body: dict[str, Any]) -> None:
    """Random values under the names that are read."""
    answered(body)


@given(st.lists(st.tuples(st.sampled_from(PLACES), JSON), min_size=1, max_size=2))
@settings(max_examples=200)
def test_any_change_of_a_valid_body_is_translated_or_refused(
    changes: list[tuple[tuple[Any, ...], Any]],
) -> None:
    """One or two wrong values anywhere in a body that uses everything."""
    body = everything()
    for path, new in changes:
        try:
            body = replaced(body, path, new)
        except (KeyError, IndexError, TypeError):
            continue  # the first change took the place of the second away
    answered(body)


@pytest.mark.parametrize("value", [None, 0, "x", [], {}], ids=repr)
def test_a_value_of_another_type_anywhere(value: Any) -> None:
    """Each place; what is let through is repeated in a form that the SDK can read."""
    for path in PLACES:
        body = replaced(everything(), path, value)
        # These two words are passed on as they are: a node may know more of them than the SDK.
        known = value != "x" or path not in [("reasoning", "effort"), ("reasoning", "summary")]
        if answered(body) and known:
            writer = ResponsesWriter(response_id="resp_1", model="m", created_at=1, request=body)
            check_event(writer.open()[0])
