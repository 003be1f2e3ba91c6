"""Headers of safetensors files, well made and hostile."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_neuron.exllama.safetensors_headers import (
    MAX_HEADER_BYTES,
    Malformed,
    Tensor,
    Truncated,
    header_length,
    parse_header,
)
from tests.apps.cortex_neuron.exllama.model_folders import BYTES, header_of

WEIGHT = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}


def said(**tensors: Any) -> bytes:
    """Return a header of these descriptions."""
    return json.dumps(tensors).encode()


def test_a_header_is_read() -> None:
    """Names, dtypes, shapes and places; what the writer noted is no tensor."""
    header = said(__metadata__={"format": "pt"}, a=WEIGHT)
    tensors = parse_header(header, 12)

    assert tensors == {"a": Tensor("F16", (2, 3), 0, 12)}
    assert (tensors["a"].bytes, tensors["a"].elements) == (12, 6)
    assert header_length(len(header).to_bytes(8, "little"), 8 + len(header) + 12) == len(header)


def test_a_type_that_is_newer_than_the_table_is_taken_at_its_word() -> None:
    """Its size cannot be checked; where it lies can."""
    odd = {"dtype": "F3", "shape": [2, 3], "data_offsets": [0, 5]}

    assert parse_header(said(a=odd), 5)["a"].bytes == 5


def test_a_claim_of_100_gb_is_not_believed() -> None:
    """Nothing is allocated for it, whatever the size of the file."""
    claim = (100 << 30).to_bytes(8, "little")
    with pytest.raises(Malformed, match="claims a header of 107374182400 bytes"):
        header_length(claim, 200 << 30)
    with pytest.raises(Truncated) as caught:
        header_length(MAX_HEADER_BYTES.to_bytes(8, "little"), 4096)

    assert caught.value.expected_bytes == MAX_HEADER_BYTES + 8


@pytest.mark.parametrize(
    ("header", "data", "match"),
    [
        (b"", 0, "no JSON"),
        (b"[]", 0, "no JSON object"),
        (b"\xff\xfe", 0, "no JSON"),
        (b'{"a":' * 100_000, 0, "no JSON"),
        (b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", 0, "no JSON"),
        (said(a=7), 0, "not described"),
        (said(a={"dtype": "F16", "shape": [2]}), 0, "has no dtype, shape and data_offsets"),
        (said(a={**WEIGHT, "shape": [-2, -3]}), 12, "has no dtype, shape"),
        (said(a={**WEIGHT, "shape": [2.0, 3]}), 12, "has no dtype, shape"),
        (said(a={**WEIGHT, "shape": [True, 6]}), 12, "has no dtype, shape"),
        (said(a={**WEIGHT, "data_offsets": [-12, 0]}), 12, "has no dtype, shape"),
        (said(a={**WEIGHT, "data_offsets": [12, 0]}), 12, "impossible"),
        (said(a={**WEIGHT, "data_offsets": [0, 6, 12]}), 12, "impossible"),
        (said(a={**WEIGHT, "data_offsets": [0, 2**70]}), 12, "has no dtype, shape"),
        (said(a={**WEIGHT, "shape": [1] * 100}), 12, "impossible"),
        (said(a={**WEIGHT, "shape": [2**62, 2**62]}), 12, "should be"),
        (said(a={**WEIGHT, "shape": [2, 4]}), 12, "is 12 bytes long and should be 16"),
        (said(a=WEIGHT, b={**WEIGHT, "data_offsets": [6, 18]}), 18, "'b' overlaps 'a'"),
        (said(a={**WEIGHT, "data_offsets": [4, 16]}), 16, "4 bytes before 'a'"),
        (said(a=WEIGHT), 20, "8 bytes at its end"),
    ],
)
def test_nonsense_is_malformed(header: bytes, data: int, match: str) -> None:
    """Whatever does not add up is told by the tensor's name."""
    with pytest.raises(Malformed, match=match):
        parse_header(header, data)


def test_a_file_that_ends_early_says_by_how_much() -> None:
    """The whole file's size, as it is and as it should be."""
    header = said(a=WEIGHT)
    with pytest.raises(Truncated) as caught:
        parse_header(header, 5)

    whole = 8 + len(header)
    assert (caught.value.expected_bytes, caught.value.actual_bytes) == (whole + 12, whole + 5)


_shapes = st.lists(st.integers(0, 7), max_size=3).map(tuple)
_tensors = st.dictionaries(st.text(min_size=1), st.tuples(st.sampled_from(sorted(BYTES)), _shapes))


@given(tensors=_tensors)
def test_what_was_written_is_read(tensors: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    """Any names and shapes, empty ones too."""
    tensors.pop("__metadata__", None)
    prefixed, size = header_of(tensors)
    found = parse_header(prefixed[8:], size)

    assert {name: (one.dtype, one.shape) for name, one in found.items()} == tensors
    assert sum(one.bytes for one in found.values()) == size


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_described = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F16", "I32", "BF16", "X"]) | _json,
        "shape": st.lists(st.integers(-3, 2**65), max_size=4) | _json,
        "data_offsets": st.lists(st.integers(-9, 2**65), max_size=3) | _json,
    },
)


@given(
    header=st.dictionaries(st.text(), _described | _json, max_size=4).map(
        lambda value: json.dumps(value).encode()
    )
    | st.binary(max_size=64),
    data=st.integers(0, 2**45),
)
def test_no_header_brings_anything_down(header: bytes, data: int) -> None:
    """It is read, or Malformed; and then its tensors cover the data without overlapping."""
    try:
        found = parse_header(header, data)
    except Malformed:
        return

    assert sum(one.bytes for one in found.values()) == data


@given(prefix=st.binary(max_size=9), size=st.integers(0, 2**50))
def test_no_prefix_brings_anything_down(prefix: bytes, size: int) -> None:
    """A length that is believed fits into the file."""
    try:
        length = header_length(prefix, size)
    except Malformed:
        return

    assert length <= min(size, MAX_HEADER_BYTES)
