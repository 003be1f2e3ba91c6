"""What a request wants besides its prompt, and what no engine of ours can do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest
from cortex_neuron.exllama.generation import (
    GRAMMAR_FIELDS,
    HARMLESS_FIELDS,
    Generation,
    read_generation,
)
from cortex_neuron.exllama.sampling import SAMPLING_FIELDS

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 2**70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=5,
)
FIELDS = [
    *("n", "max_tokens", "max_completion_tokens", "min_tokens", "seed", "stop", "stop_token_ids"),
    *("ignore_eos", "logprobs", "top_logprobs", "skip_special_tokens", "echo", "suffix", "best_of"),
    *("modalities", "user", "no_such_field", ""),
]


def chat(**body: Any) -> Generation:
    """What a chat with these fields wants."""
    return read_generation({"model": "m", "messages": [], **body}, vocabulary=100, chat=True)


def text(**body: Any) -> Generation:
    """What a text completion with these fields wants."""
    return read_generation({"model": "m", "prompt": "", **body}, vocabulary=100, chat=False)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, Generation()),
        ({"n": 3, "seed": -1}, Generation(choices=3, seed=-1)),
        ({"max_tokens": 9}, Generation(max_tokens=9)),
        ({"max_tokens": 9, "max_completion_tokens": 7}, Generation(max_tokens=7)),
        ({"max_completion_tokens": None, "max_tokens": 9}, Generation(max_tokens=9)),
        ({"stop": "x"}, Generation(stops=("x",))),
        (
            {"stop": ["", "x"], "stop_token_ids": [7]},
            Generation(stops=("x",), stop_tokens=frozenset({7})),
        ),
        ({"ignore_eos": True, "min_tokens": 4}, Generation(ignore_eos=True, min_tokens=4)),
        ({"logprobs": True}, Generation(top_logprobs=0)),
        ({"logprobs": True, "top_logprobs": 5}, Generation(top_logprobs=5)),
        ({"logprobs": False, "top_logprobs": 0}, Generation()),
        ({"skip_special_tokens": False}, Generation(shows_special=True)),
        ({"echo": False, "suffix": None, "best_of": 1, "modalities": ["text"]}, Generation()),
        ({"user": 5, "stream_options": {"include_usage": True}, "unknown": None}, Generation()),
    ],
)
def test_what_a_chat_may_want(body: dict[str, Any], expected: Generation) -> None:
    """The newer word for the limit wins, and null is as good as absent."""
    assert chat(**body) == expected


def test_a_text_completion_says_log_probabilities_in_another_way() -> None:
    """A number there, a flag and a number in chats."""
    assert text(logprobs=3) == Generation(top_logprobs=3)
    assert text(logprobs=0) == Generation(top_logprobs=0)
    assert text() == Generation()


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"max_tokens": 3, "min_tokens": 4}, "min_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"stop": ["x"] * 33}, "stop"),
        ({"stop": "x" * 1025}, "stop"),
        ({"stop_token_ids": [100]}, "stop_token_ids"),
        ({"stop_token_ids": [True]}, "stop_token_ids"),
        ({"ignore_eos": 1}, "ignore_eos"),
        ({"logprobs": 3}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"echo": True}, "echo"),
        ({"suffix": "x"}, "suffix"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"prompt": "x"}, "prompt"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"tempreature": 1}, "tempreature"),
    ],
)
def test_what_cannot_be_done_is_refused(body: dict[str, Any], param: str) -> None:
    """By its name, whether it is out of bounds, unknown, or another route's."""
    with pytest.raises(InvalidRequest) as refused:
        chat(**body)

    assert refused.value.param == param


def test_a_misspelled_field_is_told_its_name() -> None:
    """Passed over in silence, it would look like a model that does not listen."""
    with pytest.raises(InvalidRequest, match="did you mean 'temperature'"):
        chat(tempreature=1)


def test_choices_differ_though_the_seed_is_one() -> None:
    """And the same request has the same seeds again, also below zero."""
    seeds = [Generation(seed=-1).seed_of(choice) for choice in range(3)]

    assert len(set(seeds)) == 3
    assert all(seed is not None and 0 <= seed < 2**63 for seed in seeds)
    assert Generation().seed_of(1) is None


def test_a_field_is_either_read_or_harmless() -> None:
    """Nothing that is read may be on the list of what is passed over."""
    assert not HARMLESS_FIELDS & (SAMPLING_FIELDS | GRAMMAR_FIELDS)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4), st.booleans())
def test_any_body_is_read_or_refused(body: dict[str, Any], is_chat: bool) -> None:
    """Nothing else is raised, and what passes is within bounds."""
    try:
        read = read_generation(body, vocabulary=100, chat=is_chat)
    except InvalidRequest:
        return
    assert 1 <= read.choices <= 128
    assert read.max_tokens is None or read.max_tokens >= max(1, read.min_tokens)
    assert all(0 <= token < 100 for token in read.stop_tokens)
