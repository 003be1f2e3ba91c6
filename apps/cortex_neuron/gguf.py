"""Read what a GGUF file says about itself, without loading it and without trusting it.

Every length in the file is checked against what is left of the file before it is believed, big
arrays are stepped over, and the place of the last tensor must lie inside the file. What is wrong
becomes PreflightFailed: `not_found`, `unsupported_format` (no GGUF, or one of another age) or
`corrupt` (truncated, or nonsense).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cortex_core.errors import PreflightFailed
from cortex_neuron.gguf_reader import Malformed, Skipped, Unsupported, Value, read_header

_ENCODERS = frozenset(
    {"bert", "eurobert", "gemma-embedding", "jina-bert-v2", "jina-bert-v3", "modern-bert"}
    | {"neo-bert", "nomic-bert", "nomic-bert-moe", "t5encoder"}
)
_POOLING_NONE, _POOLING_RANK = 0, 4

_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4_MOE",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFacts:
    """What one GGUF file says. None is unknown; a per-layer number is a tuple."""

    architecture: str
    file_bytes: int
    tensor_bytes: int
    name: str | None = None
    quant: str | None = None
    context_length: int | None = None
    block_count: int | None = None
    embedding_length: int | None = None
    head_count: int | tuple[int, ...] | None = None
    head_count_kv: int | tuple[int, ...] | None = None
    key_length: int | None = None
    value_length: int | None = None
    vocabulary: int | None = None
    pooling_type: int | None = None
    shards: int = 1
    has_chat_template: bool = False

    @property
    def kv_elements_per_token(self) -> int | None:
        """Numbers that the cache keeps of one token, over all layers and full attention."""
        heads, layers = self.head_count_kv or self.head_count, self.block_count
        if heads is None or layers is None:
            return None
        key = self.key_length or self._head_length()
        value = self.value_length or self._head_length()
        if key is None or value is None:
            return None
        return (sum(heads) if isinstance(heads, tuple) else heads * layers) * (key + value)

    def _head_length(self) -> int | None:
        heads = max(self.head_count) if isinstance(self.head_count, tuple) else self.head_count
        return self.embedding_length // heads if self.embedding_length and heads else None


def capabilities(facts: GgufFacts) -> tuple[str, ...]:
    """Return what the model can serve: an encoder embeds, all others complete, some can chat."""
    pooled = facts.pooling_type not in (None, _POOLING_NONE)
    if facts.architecture in _ENCODERS or pooled:
        return () if facts.pooling_type == _POOLING_RANK else ("embedding",)
    return ("chat", "completion") if facts.has_chat_template else ("completion",)


def read_facts(path: Path) -> GgufFacts:
    """Return what the file at `path` says. Blocking. Raises PreflightFailed."""
    try:
        size = path.stat().st_size
        with path.open("rb", buffering=1 << 18) as file:
            header = read_header(file, size)
    except FileNotFoundError as error:
        raise PreflightFailed("not_found", f"there is no model file {path}") from error
    except OSError as error:
        reason = error.strerror or "input/output error"
        raise PreflightFailed(
            "not_found", f"the model file {path} cannot be read: {reason}"
        ) from error
    except Unsupported as error:
        raise PreflightFailed("unsupported_format", f"{path.name} {error}") from error
    except Malformed as error:
        raise PreflightFailed(
            "corrupt", f"{path.name} is damaged: {error}; delete it and fetch it again"
        ) from error
    if size < header.end:
        raise PreflightFailed(
            "corrupt",
            f"{path.name} is truncated: {header.end} bytes were expected and {size} are there; "
            "delete it and fetch it again",
            extra={"expected_bytes": header.end, "actual_bytes": size},
        )
    return _facts(path, header.values, size, header.end - header.data_start)


def _facts(path: Path, values: Mapping[str, Value], size: int, tensors: int) -> GgufFacts:
    architecture = _text(values, "general.architecture")
    if architecture is None:
        raise PreflightFailed("corrupt", f"{path.name} is damaged: it names no architecture")
    own = f"{architecture}."
    file_type = _number(values, "general.file_type")
    return GgufFacts(
        architecture=architecture,
        file_bytes=size,
        tensor_bytes=tensors,
        name=_text(values, "general.name"),
        quant=_FILE_TYPES.get(file_type) if file_type is not None else None,
        context_length=_number(values, f"{own}context_length"),
        block_count=_number(values, f"{own}block_count"),
        embedding_length=_number(values, f"{own}embedding_length"),
        head_count=_numbers(values, f"{own}attention.head_count"),
        head_count_kv=_numbers(values, f"{own}attention.head_count_kv"),
        key_length=_number(values, f"{own}attention.key_length"),
        value_length=_number(values, f"{own}attention.value_length"),
        vocabulary=_length(values, "tokenizer.ggml.tokens"),
        pooling_type=_number(values, f"{own}pooling_type"),
        shards=max(1, _number(values, "split.count") or 1),
        has_chat_template=bool(_text(values, "tokenizer.chat_template")),
    )


def _text(values: Mapping[str, Value], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) else None


def _number(values: Mapping[str, Value], key: str) -> int | None:
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _numbers(values: Mapping[str, Value], key: str) -> int | tuple[int, ...] | None:
    value = values.get(key)
    if isinstance(value, tuple):
        return tuple(int(one) for one in value)
    return _number(values, key)


def _length(values: Mapping[str, Value], key: str) -> int | None:
    value = values.get(key)
    if isinstance(value, tuple):
        return len(value)
    return value.count if isinstance(value, Skipped) else None
