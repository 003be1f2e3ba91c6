"""Grammars say which tokens may come; one that cannot be used is refused before."""

import json
from typing import Any

import pytest

from cortex_core.errors import InternalError, InvalidRequest
from cortex_neuron.exllama.grammar import Grammar, GrammarMask, Grammars
from cortex_neuron.exllama.jobs import Mask
from tests.apps.cortex_neuron.exllama.masked import allowed, takes
from tests.apps.cortex_neuron.exllama.vocabularies import bytes_vocabulary, pieces_vocabulary

VOCABULARY = bytes_vocabulary()
GRAMMARS = Grammars(VOCABULARY, VOCABULARY.eos_ids)
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}


def grammar(**one: Any) -> Grammar:
    """A compiled grammar."""
    return GRAMMARS.compile(json.dumps({"grammars": [one]}), param="guided_json")


def test_only_what_the_schema_allows_may_come() -> None:
    """And an answer may end where the schema is met, nowhere else."""
    made = grammar(json_schema=SCHEMA)

    assert takes(made, VOCABULARY, '{"ok": true}')
    assert not takes(made, VOCABULARY, '{"ok": tru')
    assert not takes(made, VOCABULARY, '{"ok": 1}')
    assert not takes(made, VOCABULARY, '{"no": true}')
    assert not takes(made, VOCABULARY, 'Sure! {"ok": true}')


def test_a_complete_grammar_lets_an_answer_end_and_do_nothing_else() -> None:
    """All that end the model's answers may come, whichever it was taught."""
    mask = grammar(json_schema=SCHEMA).mask()
    for token in VOCABULARY.encode_chat('{"ok": true}'):
        assert not mask.is_stopped
        mask.accept(token)

    assert mask.is_stopped
    assert allowed(mask, VOCABULARY) == VOCABULARY.eos_ids
    mask.accept(2)
    mask.accept(5)


def test_answers_to_one_prompt_do_not_share_their_place() -> None:
    """Each mask is at a place of its own."""
    made = grammar(lark_grammar='start: "ab"')
    one: Mask = made.mask()
    one.accept(VOCABULARY.encode_chat("a")[0])

    assert VOCABULARY.encode_chat("a")[0] in allowed(made.mask(), VOCABULARY)


def test_a_token_that_was_not_allowed_is_a_fault_of_ours() -> None:
    """The engine did not keep to the mask."""
    mask = grammar(lark_grammar='start: "ab"').mask()

    with pytest.raises(InternalError):
        mask.accept(VOCABULARY.encode_chat("b")[0])
    with pytest.raises(InvalidRequest):
        mask.allowed()


def write(mask: GrammarMask, text: str) -> None:
    """Let an answer be this text."""
    for token in VOCABULARY.encode_chat(text):
        mask.allowed()
        mask.accept(token)


def test_a_grammar_may_become_too_complex_later() -> None:
    """Then the answer cannot go on, and that is no fault of the engine's."""
    mask = grammar(lark_grammar="start: /((a{1,999}){1,999}){1,999}/").mask()

    with pytest.raises(InvalidRequest, match="too complex"):
        write(mask, "a" * 99)


def test_sentencepiece_has_grammars_too() -> None:
    """Character by character where nothing better is in its vocabulary."""
    vocabulary = pieces_vocabulary()
    made = Grammars(vocabulary, vocabulary.eos_ids).compile(
        json.dumps({"grammars": [{"lark_grammar": 'start: " hello é"'}]}), param="guided_grammar"
    )

    assert takes(made, vocabulary, "hello é")
    assert not takes(made, vocabulary, "hello e")


@pytest.mark.parametrize(
    "one",
    [
        {"json_schema": {"type": "objekt"}},
        {"json_schema": {"type": "object", "if": {}}},
        {"json_schema": {"$ref": "https://example.com/schema"}},
        {"json_schema": {"type": "string", "pattern": "("}},
        {"json_schema": {"enum": []}},
        {"lark_grammar": "start: /(/"},
        {"lark_grammar": "start: a"},
        {"lark_grammar": "x"},
        {"lark_grammar": ""},
        {"json_schema": {"type": "object", "properties": {f"p{n}": {} for n in range(3000)}}},
    ],
)
def test_a_grammar_that_cannot_be_used_is_refused(one: dict[str, Any]) -> None:
    """In a sentence, by the field that it came in."""
    with pytest.raises(InvalidRequest) as refused:
        grammar(**one)

    assert refused.value.param == "guided_json"
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 400


def test_markers_are_tokens_where_they_are_tokens() -> None:
    """A text of the same letters would be other tokens."""
    assert GRAMMARS.marker("[TOOL_CALLS]") == "<[3]>"
    assert GRAMMARS.is_token("[TOOL_CALLS]")
    assert GRAMMARS.marker("[ARGS]") == '"[ARGS]"'
    assert not GRAMMARS.is_token("[ARGS]")


def test_a_model_whose_end_nobody_knows_has_grammars() -> None:
    """Its answers end by their length."""
    made = Grammars(VOCABULARY, [VOCABULARY.size + 5]).compile(
        json.dumps({"grammars": [{"json_schema": SCHEMA}]}), param="x"
    )

    assert VOCABULARY.encode_chat("{")[0] in allowed(made.mask(), VOCABULARY)
