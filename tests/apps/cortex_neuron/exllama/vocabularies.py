"""Small tokenizers of both families, made here and now."""

from functools import cache
from pathlib import Path
from typing import Any

from orjson import dumps
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from cortex_neuron.exllama.vocabulary import Vocabulary

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "[TOOL_CALLS]"]
MARKERS = ["<think>", "</think>", "<tool_call>", "</tool_call>"]
_CORPUS = [
    "the quick brown fox jumps over the lazy dog. hello world, once upon a time there was one.\n",
    '{"name": "get_weather", "arguments": {"city": "Oslo"}} 0123456789 stop stopped\n',
] * 20


@cache
def byte_level() -> Tokenizer:
    """One whose tokens are of bytes, with special tokens and with markers that are text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(one, special=False) for one in MARKERS])
    return tokenizer


@cache
def sentencepiece() -> Tokenizer:
    """One whose spaces are `▁` and whose rare characters are bytes, which begins with a bos."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz.,"]
    merges = [("\u2581", "h"), ("h", "e"), ("l", "l"), ("he", "ll"), ("\u2581", "w")]
    vocab = {word: number for number, word in enumerate([*words, *letters])}
    for one, other in merges:
        vocab.setdefault(one + other, len(vocab))
    model = models.BPE(
        vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def write_model(folder: Path, tokenizer: Tokenizer, **files: Any) -> Path:
    """Write a model's small files: `config={…}` becomes config.json."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    for name, value in files.items():
        (folder / f"{name}.json").write_bytes(dumps(value))
    return folder


@cache
def bytes_vocabulary() -> Vocabulary:
    """The vocabulary of `byte_level`."""
    return Vocabulary(byte_level(), named={"eos_token": "<|im_end|>"}, eos_ids=frozenset({0, 2}))


@cache
def pieces_vocabulary() -> Vocabulary:
    """The vocabulary of `sentencepiece`."""
    named = {"bos_token": "<s>", "eos_token": "</s>"}
    return Vocabulary(sentencepiece(), named=named, eos_ids=frozenset({2}))
