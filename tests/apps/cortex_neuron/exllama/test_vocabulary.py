"""A model's tokens, read from its folder, and the bytes of each."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.vocabulary import Vocabulary
from tests.apps.cortex_neuron.exllama.vocabularies import (
    byte_level,
    bytes_vocabulary,
    pieces_vocabulary,
    sentencepiece,
    write_model,
)


def joined(vocabulary: Vocabulary, tokens: list[int]) -> str:
    """The text that tokens stand for."""
    return b"".join(vocabulary.piece(token) for token in tokens).decode()


@given(st.text(max_size=40))
def test_tokens_of_bytes_are_the_text(text: str) -> None:
    """Whatever the text: every byte of it is some token's."""
    vocabulary = bytes_vocabulary()

    assert joined(vocabulary, vocabulary.encode_chat(text)) == text


@given(st.text(st.characters(exclude_characters="\u2581", exclude_categories=["Cs"]), max_size=40))
def test_tokens_of_sentencepiece_are_the_text(text: str) -> None:
    """With the space that this family puts before a text, and rare characters byte by byte."""
    vocabulary = pieces_vocabulary()

    assert joined(vocabulary, vocabulary.encode_chat(text)).removeprefix(" ") == text.removeprefix(
        " "
    )


def test_half_a_character_has_its_bytes() -> None:
    """In both families."""
    for vocabulary in (bytes_vocabulary(), pieces_vocabulary()):
        pieces = [vocabulary.piece(token) for token in vocabulary.encode_chat("😀")]

        assert b"".join(pieces).strip() == "😀".encode()
        assert b"\xf0" in pieces or b"\xf0\x9f" in pieces


def test_what_is_no_token_is_no_bytes() -> None:
    """A model's logits have more places than its tokenizer has tokens."""
    vocabulary = bytes_vocabulary()

    assert vocabulary.piece(vocabulary.size) == b""
    assert vocabulary.piece(-1) == b""


def test_every_end_of_an_answer_counts(tmp_path: Path) -> None:
    """The two configurations and the tokenizer's each may know one that the others do not."""
    folder = write_model(
        tmp_path,
        byte_level(),
        config={"eos_token_id": 0, "text_config": {"eos_token_id": [5]}},
        generation_config={"eos_token_id": [1, 0, "x", True, None]},
        tokenizer_config={"eos_token": {"content": "<|im_end|>"}, "bos_token": None},
    )
    vocabulary = Vocabulary.from_folder(folder)

    assert vocabulary.eos_ids == {0, 1, 2, 5}
    assert vocabulary.named == {"eos_token": "<|im_end|>"}


def test_names_come_from_either_file(tmp_path: Path) -> None:
    """The tokenizer's configuration has the last word."""
    folder = write_model(
        tmp_path,
        sentencepiece(),
        special_tokens_map={
            "bos_token": "<s>",
            "eos_token": "<s>",
            "unk_token": {"content": "<unk>"},
        },
        tokenizer_config={"eos_token": "</s>", "additional_special_tokens": ["x"]},
    )
    named = Vocabulary.from_folder(folder).named

    assert named == {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


@pytest.mark.parametrize(
    ("adds_bos", "prompt", "count"),
    [(None, "a", 1), (True, "a", 1), (False, "a", 0), (None, "<s>a", 1), (True, "<s>a", 1)],
)
def test_a_text_begins_with_one_bos_at_most(
    adds_bos: bool | None, prompt: str, count: int, tmp_path: Path
) -> None:
    """As its files say, and never a second one where the prompt has it."""
    settings = {"bos_token": "<s>", "add_bos_token": adds_bos}
    folder = write_model(tmp_path, sentencepiece(), tokenizer_config=settings)
    vocabulary = Vocabulary.from_folder(folder)

    assert vocabulary.encode_text(prompt).count(1) == count
    assert vocabulary.encode_chat("a").count(1) == 0


def test_a_file_that_asks_to_cut_prompts_does_not_get_them_cut(tmp_path: Path) -> None:
    """Truncation and padding are left over from training."""
    tokenizer = Tokenizer.from_str(byte_level().to_str())
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=50)
    vocabulary = Vocabulary.from_folder(write_model(tmp_path, tokenizer))

    assert joined(vocabulary, vocabulary.encode_chat("once upon a time")) == "once upon a time"


def test_a_special_token_is_known_by_its_text() -> None:
    """Blank text before it aside; a marker that is text is none."""
    vocabulary = bytes_vocabulary()

    assert vocabulary.special_at_start("\n<|im_end|>\n") == 2
    assert vocabulary.special_at_start("x<|im_end|>") is None
    assert vocabulary.special_at_start("<think>") is None
    assert vocabulary.special_at_start("") is None


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"model": 5}', "\ud800"])
def test_a_broken_tokenizer_is_named(text: str, tmp_path: Path) -> None:
    """Before anything of the model is loaded."""
    (tmp_path / "tokenizer.json").write_bytes(text.encode("utf-8", "surrogatepass"))

    with pytest.raises(PreflightFailed, match=r"tokenizer\.json") as refused:
        Vocabulary.from_folder(tmp_path)
    assert refused.value.kind == "corrupt"


def test_a_model_without_tokenizer_is_refused(tmp_path: Path) -> None:
    """There is nothing to guess it from."""
    with pytest.raises(PreflightFailed) as refused:
        Vocabulary.from_folder(tmp_path)

    assert refused.value.kind == "not_found"


def test_a_family_that_is_not_known_is_refused(tmp_path: Path) -> None:
    """Its tokens have no bytes of their own."""
    tokenizer = Tokenizer(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece()

    with pytest.raises(PreflightFailed) as refused:
        Vocabulary.from_folder(write_model(tmp_path, tokenizer))
    assert refused.value.kind == "unsupported_format"
