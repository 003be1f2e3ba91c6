"""A model's tokens: text to ids, and each id to the bytes that it stands for.

`tokenizers` decodes whole sequences and mends what is broken in them. An answer comes token by
token, and half a character must wait for its other half, so here every token has its own bytes.
Two families are known, and every model that exllamav2 runs is of one of them:

1. byte level: each character of a token's name stands for one byte;
2. sentencepiece: `▁` is a space, and `<0x0A>` the byte 10.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orjson import loads
from tokenizers import Tokenizer

from cortex_core.errors import PreflightFailed
from cortex_neuron.exllama.model_files import read_object, read_text

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"
#: The words of a tokenizer's configuration that name one token.
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token")


class Vocabulary:
    """The tokens of one model.

    `size` counts the ids that have a token (the model's logits may have more), `special` are those
    that are no text, `eos_ids` all that end an answer, `named` the texts that templates know
    (`bos_token`, …).
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        named: Mapping[str, str],
        eos_ids: frozenset[int],
        adds_bos: bool | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        self.named = dict(named)
        self.eos_ids = eos_ids
        added = tokenizer.get_added_tokens_decoder()
        self.special = frozenset(token for token, one in added.items() if one.special)
        self._added = {token: one.content.encode() for token, one in added.items()}
        self._adds_bos = adds_bos
        self._byte_level, self._byte_fallback = _family(tokenizer)
        self._pieces: dict[int, bytes] = {}

    @classmethod
    def from_folder(cls, folder: Path) -> "Vocabulary":
        """Return the vocabulary of the model in `folder`. Blocking. Raises PreflightFailed."""
        text = read_text(folder, "tokenizer.json")
        if text is None:
            raise PreflightFailed("not_found", "the model has no tokenizer.json")
        tokenizer = _tokenizer(text)
        settings = read_object(folder, "tokenizer_config.json") or {}
        named = read_named(folder)
        configs = [read_object(folder, name) for name in ("config.json", "generation_config.json")]
        eos = {one for config in configs for one in _eos_ids(config or {})}
        if (by_name := tokenizer.token_to_id(named.get("eos_token", ""))) is not None:
            eos.add(by_name)
        adds_bos = settings.get("add_bos_token")
        return cls(
            tokenizer,
            named=named,
            eos_ids=frozenset(eos),
            adds_bos=adds_bos if isinstance(adds_bos, bool) else None,
        )

    def encode_chat(self, prompt: str) -> list[int]:
        """Return the tokens of a rendered chat: the template has said what begins it."""
        return self._encode(prompt)

    def encode_text(self, prompt: str) -> list[int]:
        """Return the tokens of plain text, begun as the model was trained: with one bos at most."""
        bos = self.named.get("bos_token", "")
        bos_id = self.tokenizer.token_to_id(bos) if bos else None
        begun = bos_id is not None and prompt.startswith(bos)
        tokens = self._encode(prompt)
        if begun or self._adds_bos is False or bos_id is None:
            return tokens
        wanted = self._adds_bos or bos_id in self.tokenizer.encode("", add_special_tokens=True).ids
        return [bos_id, *tokens] if wanted else tokens

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token; an id that has none is no bytes."""
        found = self._pieces.get(token)
        if found is None:
            found = self._pieces[token] = self._read(token)
        return found

    def special_at_start(self, text: str) -> int | None:
        """Return the special token that `text` begins with, blank text aside."""
        said = text.lstrip().encode()
        found = [
            (len(self._added[token]), token)
            for token in self.special
            if self._added[token] and said.startswith(self._added[token])
        ]
        return max(found)[1] if found else None

    def _encode(self, text: str) -> list[int]:
        # The plain call works out each token's place in the text too, for twice the time.
        return list(self.tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def _read(self, token: int) -> bytes:
        if (added := self._added.get(token)) is not None:
            return added
        name = self.tokenizer.id_to_token(token) if 0 <= token < self.size else None
        if name is None:
            return b""
        if self._byte_level:
            strange = any(character not in _BYTES for character in name)
            return name.encode() if strange else bytes(_BYTES[one] for one in name)
        if self._byte_fallback and (byte := _BYTE.fullmatch(name)):
            return bytes([int(byte[1], 16)])
        return name.replace(_SPACE, " ").encode()


def read_named(folder: Path) -> dict[str, str]:
    """Return the texts of a model's special tokens by name. Blocking. Raises PreflightFailed."""
    files = ("special_tokens_map.json", "tokenizer_config.json")
    return {key: text for name in files for key, text in _named(read_object(folder, name) or {})}


def _byte_table() -> dict[str, int]:
    """Return what byte each character stands for: printable ones are themselves, others follow."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(0x100) if byte not in plain]
    table = {chr(byte): byte for byte in plain}
    return table | {chr(0x100 + number): byte for number, byte in enumerate(rest)}


_BYTES = _byte_table()


def _tokenizer(text: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # `tokenizers` raises nothing more precise
        raise PreflightFailed("corrupt", "tokenizer.json of the model cannot be read") from error
    # A file may ask to cut or fill up prompts: that was meant for training.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _family(tokenizer: Tokenizer) -> tuple[bool, bool]:
    """Return whether tokens are of bytes, and if not, whether some of them are a byte each."""
    decoder = tokenizer.decoder
    kinds = set() if decoder is None else set(_decoders(loads(decoder.__getstate__())))
    if "ByteLevel" in kinds:
        return True, False
    if kinds & {"Metaspace", "Replace", "ByteFallback"}:
        return False, "ByteFallback" in kinds
    raise PreflightFailed(
        "unsupported_format", "the model's tokenizer is neither of bytes nor sentencepiece's"
    )


def _decoders(decoder: Any) -> Iterator[str]:
    yield decoder["type"]
    for inner in decoder.get("decoders", ()):
        yield from _decoders(inner)


def _named(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the tokens that a file names and their texts: plain, or with their properties."""
    for key in _NAMED:
        value = settings.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            yield key, text


def _eos_ids(config: Mapping[str, Any]) -> Iterator[int]:
    """Yield the ids that end an answer, by a model's configuration: one, or a list."""
    inner = config.get("text_config")
    for said in (config, inner if isinstance(inner, dict) else {}):
        value = said.get("eos_token_id")
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int) and not isinstance(one, bool) and one >= 0:
                yield one
