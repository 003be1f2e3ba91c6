"""Write small GGUF files by hand."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

Value = tuple[int, bytes]


def string(text: str) -> Value:
    """Return a text."""
    return 8, _text(text)


def number(value: int) -> Value:
    """Return an unsigned 32-bit number."""
    return 4, struct.pack("<I", value)


def array(items: Sequence[str] | Sequence[int]) -> Value:
    """Return texts or numbers."""
    texts = [one for one in items if isinstance(one, str)]
    if texts:
        return 9, struct.pack("<IQ", 8, len(texts)) + b"".join(map(_text, texts))
    return 9, struct.pack(f"<IQ{len(items)}I", 4, len(items), *items)


def tensor(name: str, shape: Sequence[int], *, kind: int, offset: int) -> bytes:
    """Return the description of one tensor."""
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return _text(name) + sizes + struct.pack("<IQ", kind, offset)


def gguf(values: Mapping[str, Value], tensors: Sequence[bytes], data_bytes: int) -> bytes:
    """Return a whole file, version 3, aligned to 32 bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for key, (kind, data) in values.items():
        head += _text(key) + struct.pack("<I", kind) + data
    head += b"".join(tensors)
    padding = -len(head) % 32 if tensors else 0
    return head + bytes(padding) + bytes(data_bytes)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def with_template(model: Path, copy: Path, template: str) -> Path:
    """Write a copy of a model file that has another chat template; return where it is."""
    whole = model.read_bytes()
    key = _text("tokenizer.chat_template") + struct.pack("<I", 8)
    at = whole.index(key) + len(key)
    (old,) = struct.unpack_from("<Q", whole, at)
    # What follows keeps its place within a block of 32 bytes.
    text = template.encode() + b"{##}"
    text = text[:-2] + b" " * ((old - len(text)) % 32) + text[-2:]
    copy.write_bytes(
        b"".join((whole[:at], struct.pack("<Q", len(text)), text, whole[at + 8 + old :]))
    )
    return copy
