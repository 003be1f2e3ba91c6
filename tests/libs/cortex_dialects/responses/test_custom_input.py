"""The text of a custom tool comes out of its JSON arguments, however they are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orjson import dumps

from cortex_dialects.responses.custom_input import CustomInput
from tests.libs.cortex_dialects.responses.escapes import escaped

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/\n\t😀é'))


def read(*pieces: str) -> str:
    """Read these pieces."""
    reader = CustomInput()
    return "".join([*[reader.feed(piece) for piece in pieces], reader.finish()])


@given(TEXTS, st.booleans(), st.lists(st.integers(0, 400), max_size=6))
def test_any_text_cut_anywhere(text: str, plain: bool, cuts: list[int]) -> None:
    """Escapes and pairs of them may be torn apart between pieces."""
    arguments = dumps({"input": text}).decode() if plain else f' {{ "input" : {escaped(text)} }}'
    edges = [0, *sorted(cuts), len(arguments)]

    pieces = [arguments[a:b] for a, b in pairwise(edges)]
    assert read(*pieces) == text


def test_the_text_is_seen_as_it_grows() -> None:
    """A client's idle timer must not run through a long patch."""
    reader = CustomInput()

    assert reader.feed('{"input": "one\\n') == "one\n"
    assert reader.feed("two\\") == "two"
    assert reader.feed('n"}') == "\n"
    assert reader.finish() == ""


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("*** Begin Patch", "*** Begin Patch"),
        ('"a string"', "a string"),
        ('{"patch":"x"}', '{"patch":"x"}'),
        ('{"a":1,"input":"x"}', "x"),
        ('{"input":5}', '{"input":5}'),
        ("", ""),
        ('{"input":"cut sho', "cut sho"),
        ('{"input":"a\nb"}', "a\nb"),
        (r'{"input":"\d+"}', r"\d+"),
        (r'{"input":"\ud83dx\ude00\uZZ"}', "\ufffdx\ufffd\\uZZ"),
    ],
)
def test_models_that_do_not_keep_to_the_form(arguments: str, text: str) -> None:
    """What the model meant, or else what it wrote: nothing is lost."""
    assert read(arguments) == text
    assert read(*arguments) == text
