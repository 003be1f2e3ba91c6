"""GGUF headers: what is read, and what hostile ones come to."""

import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortex_core.errors import PreflightFailed
from cortex_neuron.gguf import capabilities, read_facts
from tests.apps.cortex_neuron.gguf_files import array, gguf, number, string, tensor
from tests.demo_model import demo_model_path

BASE: dict[str, Any] = {
    "general.architecture": string("llama"),
    "general.file_type": number(15),
    "llama.context_length": number(4096),
    "llama.block_count": number(2),
    "llama.embedding_length": number(64),
    "llama.attention.head_count": number(8),
    "llama.attention.head_count_kv": number(2),
    "tokenizer.ggml.tokens": array(["a", "b", "c"]),
}
TENSORS = (tensor("w", (32, 4), kind=8, offset=0),)  # Q8_0: 4 blocks of 34 bytes


def write(folder: Path, data: bytes) -> Path:
    """Write a file."""
    path = folder / "m.gguf"
    path.write_bytes(data)
    return path


def test_the_header_is_read(tmp_path: Path) -> None:
    """Numbers, texts and lengths of arrays land in the facts."""
    facts = read_facts(write(tmp_path, gguf(BASE, TENSORS, 136)))

    assert (facts.architecture, facts.quant, facts.context_length) == ("llama", "Q4_K_M", 4096)
    assert (facts.vocabulary, facts.tensor_bytes) == (3, 136)
    assert facts.kv_elements_per_token == 2 * 2 * (8 + 8)


def test_heads_may_differ_by_layer(tmp_path: Path) -> None:
    """A per-layer array of KV heads is summed; own key and value lengths count."""
    values = BASE | {
        "llama.attention.head_count_kv": array([2, 0]),
        "llama.attention.key_length": number(16),
        "llama.attention.value_length": number(4),
    }
    facts = read_facts(write(tmp_path, gguf(values, TENSORS, 136)))

    assert facts.head_count_kv == (2, 0)
    assert facts.kv_elements_per_token == 2 * (16 + 4)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ("completion",)),
        ({"tokenizer.chat_template": string("{{ x }}")}, ("chat", "completion")),
        ({"llama.pooling_type": number(1)}, ("embedding",)),
        ({"general.architecture": string("bert")}, ("embedding",)),
        ({"llama.pooling_type": number(4)}, ()),
    ],
)
def test_capabilities_come_from_the_file(
    tmp_path: Path, more: dict[str, Any], expected: tuple[str, ...]
) -> None:
    """A template makes a chat model, pooling an embedder; a reranker is neither."""
    facts = read_facts(write(tmp_path, gguf(BASE | more, TENSORS, 136)))

    assert capabilities(facts) == expected


def refuse(path: Path) -> PreflightFailed:
    """Return the refusal of a file."""
    with pytest.raises(PreflightFailed) as caught:
        read_facts(path)
    return caught.value


def test_a_truncated_file_is_corrupt(tmp_path: Path) -> None:
    """One missing byte of the last tensor is noticed, with both sizes."""
    whole = gguf(BASE, TENSORS, 136)
    error = refuse(write(tmp_path, whole[:-1]))

    assert error.kind == "corrupt"
    assert error.extra["expected_bytes"] == len(whole)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "unsupported_format"),
        (b"PK\x03\x04zip", "unsupported_format"),
        (b"GGUF" + struct.pack("<I", 1), "unsupported_format"),
        (b"GGUF" + struct.pack(">I", 3), "unsupported_format"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "corrupt"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "corrupt"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "corrupt"),
        (gguf({"a": string("b")}, (), 0), "corrupt"),
        (gguf(BASE | {"general.alignment": number(0)}, TENSORS, 136), "corrupt"),
        (gguf(BASE | {"x": (99, b"")}, TENSORS, 136), "corrupt"),
        (gguf(BASE | {"x": (9, struct.pack("<IQ", 8, 1 << 40))}, TENSORS, 136), "corrupt"),
        (gguf(BASE | {"x": (9, struct.pack("<IQ", 9, 1))}, TENSORS, 136), "corrupt"),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, data: bytes, kind: str) -> None:
    """Other files, other ages, and numbers that do not fit the file."""
    assert refuse(write(tmp_path, data)).kind == kind


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    """No file, no facts."""
    assert refuse(tmp_path / "none.gguf").kind == "not_found"
    assert refuse(tmp_path).kind == "not_found"


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200
)
@given(at=st.integers(0, 400), byte=st.integers(0, 255), cut=st.integers(0, 400))
def test_no_damage_makes_it_crash(tmp_path: Path, at: int, byte: int, cut: int) -> None:
    """Any byte changed and any cut: facts or PreflightFailed, nothing else."""
    data = bytearray(gguf(BASE, TENSORS, 136))
    data[at % len(data)] = byte
    path = write(tmp_path, bytes(data[: len(data) - cut]))
    outcome = "read"
    try:
        read_facts(path)
    except PreflightFailed as error:
        outcome = error.kind

    assert outcome in {"read", "corrupt", "unsupported_format"}


def test_the_demo_model_is_understood() -> None:
    """A real file, in numbers that were looked up."""
    facts = read_facts(demo_model_path())

    assert (facts.architecture, facts.context_length, facts.vocabulary) == ("llama", 8192, 49152)
    assert facts.kv_elements_per_token == 30 * 3 * 128
    assert facts.has_chat_template
