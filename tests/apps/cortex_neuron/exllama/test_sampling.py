"""How tokens are drawn: the request's word, then the model's, then nobody's."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest, PreflightFailed
from cortex_neuron.exllama.sampling import (
    SAMPLING_FIELDS,
    ModelDefaults,
    Sampling,
    read_sampling,
)

DEFAULTS = ModelDefaults(vocabulary=100)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "1", "99", "100", "-1", "²"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["1", "99", "100", "a", "²"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def recommended(folder: Path, **values: object) -> ModelDefaults:
    """What a model's makers recommend."""
    (folder / "generation_config.json").write_text(json.dumps(values))
    return ModelDefaults.from_folder(folder, vocabulary=100)


def test_without_a_word_every_token_counts_by_its_probability() -> None:
    """The engine's own defaults cut the distribution; nobody asked for that."""
    assert read_sampling({}, DEFAULTS) == Sampling(
        temperature=1, top_p=1, top_k=0, min_p=0, repetition_penalty=1
    )


def test_the_makers_word_counts_where_the_request_has_none(tmp_path: Path) -> None:
    """And the request's where it has one."""
    defaults = recommended(tmp_path, temperature=0.6, top_k=20, repetition_penalty=1.05)

    assert read_sampling({"temperature": 0.2, "top_k": None}, defaults) == Sampling(
        temperature=0.2, top_k=20, repetition_penalty=1.05
    )


def test_a_recommendation_out_of_bounds_is_none(tmp_path: Path) -> None:
    """A file's nonsense is no reason to refuse every request."""
    defaults = recommended(tmp_path, temperature=-3, top_p="much", top_k=20, do_sample=True)

    assert read_sampling({}, defaults) == Sampling(top_k=20)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    """What cannot be read is a matter of the model's, not of a request's."""
    (tmp_path / "generation_config.json").write_text("{")

    with pytest.raises(PreflightFailed, match=r"generation_config\.json"):
        ModelDefaults.from_folder(tmp_path, vocabulary=100)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"temperature": 0}, Sampling(temperature=0)),
        ({"top_p": 0}, Sampling(temperature=0)),
        ({"top_k": -1}, Sampling(top_k=0)),
        ({"top_k": 5.0}, Sampling(top_k=5)),
        ({"typical_p": 1, "tfs": 1}, Sampling()),
        ({"typical": 0.5, "tfs_z": 0.25}, Sampling(typical_p=0.5, tfs=0.25)),
        (
            {"repeat_penalty": 1.2, "repeat_last_n": 64},
            Sampling(repetition_penalty=1.2, repetition_range=64),
        ),
        ({"repeat_penalty": 1.2, "repetition_penalty": 1.1}, Sampling(repetition_penalty=1.1)),
        ({"mirostat": 2, "mirostat_tau": 3}, Sampling(mirostat=True, mirostat_tau=3)),
        ({"mirostat_mode": 0}, Sampling()),
        (
            {"dry_multiplier": 0.8, "dry_sequence_breakers": ["\n", ""]},
            Sampling(dry_multiplier=0.8, dry_sequence_breakers=("\n",)),
        ),
        (
            {"xtc_probability": 0.5, "xtc_threshold": 0.2},
            Sampling(xtc_probability=0.5, xtc_threshold=0.2),
        ),
        ({"logit_bias": {"7": -100, "8": 0}}, Sampling(logit_bias={7: -100})),
    ],
)
def test_what_a_request_may_say(body: dict[str, Any], expected: Sampling) -> None:
    """Other servers' words and their ways of saying nothing are understood."""
    assert read_sampling(body, DEFAULTS) == expected


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repeat_penalty": 0}, "repeat_penalty"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"mirostat": 1}, "mirostat"),
        ({"temperature_last": 1}, "temperature_last"),
        ({"dry_sequence_breakers": "\n"}, "dry_sequence_breakers"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logit_bias": {"100": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"x" * 9999: 1}}, "logit_bias"),
        ({"logit_bias": {"7": 101}}, "logit_bias"),
    ],
)
def test_what_is_out_of_bounds_is_refused(body: dict[str, Any], param: str) -> None:
    """The refusal names the field as the request has it, and is short."""
    with pytest.raises(InvalidRequest) as refused:
        read_sampling(body, DEFAULTS)

    assert refused.value.param == param
    assert repr(param) in refused.value.message
    assert len(refused.value.message) < 200


@given(st.dictionaries(st.sampled_from(sorted(SAMPLING_FIELDS)), json_values, max_size=6))
def test_whatever_is_said_is_within_bounds_or_refused(body: dict[str, Any]) -> None:
    """No value raises anything else, and none passes that the engine cannot bear."""
    try:
        read = read_sampling(body, DEFAULTS)
    except InvalidRequest:
        return
    assert 0 <= read.temperature <= 5
    assert 0 < read.top_p <= 1
    assert 0 <= read.top_k <= 2**20
    assert all(0 <= token < 100 and -100 <= bias <= 100 for token, bias in read.logit_bias.items())
