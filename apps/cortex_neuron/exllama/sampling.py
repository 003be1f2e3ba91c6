"""How the next token is drawn: what a request says, then what its model's makers say, then nothing.

| field | between | else | |
|---|---|---|---|
| `temperature` | 0, 5 | 1 | 0: always the likeliest token |
| `top_p` | 0, 1 | 1 | 0: always the likeliest token |
| `top_k` | -1, 2^20 | 0 | -1 and 0: all |
| `min_p`, `typical_p`, `tfs`, `top_a` | 0, 1 | off | |
| `repetition_penalty` | 0.01, 10 | 1 | `repeat_penalty` too |
| `repetition_range` | -1, 2^20 | -1 | tokens that count, -1: all; `repeat_last_n` too |
| `presence_penalty`, `frequency_penalty` | -2, 2 | 0 | |
| `dry_multiplier` | 0, 100 | 0 | off; with `dry_base` 1.75, `dry_allowed_length` 2, `dry_range` 0 |
| `xtc_probability` | 0, 1 | 0 | off; with `xtc_threshold` 0.1 |
| `mirostat` | 0, 2 | 0 | off; with `mirostat_tau` 5, `mirostat_eta` 0.1 |
| `smoothing_factor` | 0, 100 | 0 | off |
| `temperature_last` | | false | |
| `logit_bias` | -100, 100 | | by token id |

The makers' word is `generation_config.json`: `temperature`, `top_p`, `top_k`, `min_p`, `typical_p`
and `repetition_penalty` count from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from cortex_core.errors import InvalidRequest
from cortex_neuron.exllama.fields import Bounds, read_flag, read_integer, read_number
from cortex_neuron.exllama.model_files import read_object

_MANY: Final = float(2**20)
_SHARE: Final = Bounds(0, 1)
_BIAS: Final = Bounds(-100, 100)
#: More breakers, or longer ones, are no breakers.
_MOST_BREAKERS: Final = 64
_LONGEST_BREAKER: Final = 64

_NUMBERS: Final = {
    "temperature": Bounds(0, 5),
    "top_p": _SHARE,
    "min_p": _SHARE,
    "typical_p": _SHARE,
    "tfs": _SHARE,
    "top_a": _SHARE,
    "repetition_penalty": Bounds(0.01, 10),
    "presence_penalty": Bounds(-2, 2),
    "frequency_penalty": Bounds(-2, 2),
    "dry_multiplier": Bounds(0, 100),
    "dry_base": Bounds(1, 100),
    "xtc_probability": _SHARE,
    "xtc_threshold": _SHARE,
    "mirostat_tau": Bounds(0, 100),
    "mirostat_eta": Bounds(0, 1),
    "smoothing_factor": Bounds(0, 100),
}
_INTEGERS: Final = {
    "top_k": Bounds(-1, _MANY),
    "repetition_range": Bounds(-1, _MANY),
    "dry_allowed_length": Bounds(0, _MANY),
    "dry_range": Bounds(-1, _MANY),
    "mirostat": Bounds(0, 2),
}
#: Other servers' words, by ours.
_ALIASES: Final = {
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "repetition_range",
    "penalty_range": "repetition_range",
    "typical": "typical_p",
    "tfs_z": "tfs",
    "dry_penalty_last_n": "dry_range",
    "mirostat_mode": "mirostat",
}
_OF_THE_MODEL: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
)

#: Every field of a request that is read here.
SAMPLING_FIELDS: Final = frozenset(
    {*_NUMBERS, *_INTEGERS, *_ALIASES, "temperature_last", "dry_sequence_breakers", "logit_bias"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn. As made, every token counts by its own probability.

    `temperature` 0 is greedy. `min_p`, `typical_p`, `tfs` and `top_a` are off at 0, `top_p` at 1,
    `top_k` at 0. `dry_sequence_breakers` None are the engine's own.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    typical_p: float = 0.0
    tfs: float = 0.0
    top_a: float = 0.0
    repetition_penalty: float = 1.0
    repetition_range: int = -1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_range: int = 0
    dry_sequence_breakers: tuple[str, ...] | None = None
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: bool = False
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    smoothing_factor: float = 0.0
    temperature_last: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDefaults:
    """What a model's makers recommend, by field, and how many tokens the model has."""

    vocabulary: int
    values: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def from_folder(cls, folder: Path, *, vocabulary: int) -> "ModelDefaults":
        """Return what `generation_config.json` says. Raises PreflightFailed.

        What is out of bounds there is not recommended: no request of anybody's would be right.
        """
        config = read_object(folder, "generation_config.json") or {}
        values: dict[str, float] = {}
        for name in _OF_THE_MODEL:
            try:
                value = _read(config, name)
            except InvalidRequest:
                continue
            if value is not None:
                values[name] = value
        return cls(vocabulary=vocabulary, values=MappingProxyType(values))


def read_sampling(body: Mapping[str, Any], defaults: ModelDefaults) -> Sampling:
    """Return how `body` wants tokens drawn. Raises InvalidRequest for what is out of bounds."""
    said: dict[str, Any] = dict(defaults.values)
    for name in (*_NUMBERS, *_INTEGERS):
        if (value := _asked(body, name)) is not None:
            said[name] = value
    if said.get("mirostat") == 1:
        raise InvalidRequest("'mirostat' must be 0 or 2", param="mirostat")
    said["mirostat"] = bool(said.get("mirostat"))
    said["top_k"] = max(0, said.get("top_k", 0))
    said["dry_range"] = max(0, said.get("dry_range", 0))
    if said.get("top_p") == 0:
        said |= {"temperature": 0.0, "top_p": 1.0}
    for name in ("typical_p", "tfs"):
        if said.get(name) == 1:
            said[name] = 0.0  # Elsewhere 1 is off; to the engine 0 is.
    return Sampling(
        **said,
        temperature_last=read_flag(body, "temperature_last"),
        dry_sequence_breakers=_breakers(body),
        logit_bias=_logit_bias(body, defaults.vocabulary),
    )


def _asked(body: Mapping[str, Any], name: str) -> float | None:
    """Return a number by its own name, or by the first alias that has one."""
    if (value := _read(body, name)) is not None:
        return value
    others = (alias for alias, meant in _ALIASES.items() if meant == name)
    found = next((alias for alias in others if body.get(alias) is not None), None)
    if found is None:
        return None
    return _read(body, found, bounded_as=name)


def _read(body: Mapping[str, Any], name: str, *, bounded_as: str | None = None) -> float | None:
    key = bounded_as or name
    if key in _INTEGERS:
        return read_integer(body, name, _INTEGERS[key])
    return read_number(body, name, _NUMBERS[key])


def _breakers(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = body.get("dry_sequence_breakers")
    if value is None:
        return None
    if (
        not isinstance(value, list)
        or len(value) > _MOST_BREAKERS
        or not all(isinstance(one, str) and len(one) <= _LONGEST_BREAKER for one in value)
    ):
        raise InvalidRequest(
            f"'dry_sequence_breakers' must be a list of at most {_MOST_BREAKERS} short strings",
            param="dry_sequence_breakers",
        )
    return tuple(one for one in value if one)


def _logit_bias(body: Mapping[str, Any], vocabulary: int) -> Mapping[int, float]:
    value = body.get("logit_bias")
    if value is None:
        return MappingProxyType({})
    if not isinstance(value, dict):
        raise InvalidRequest(
            "'logit_bias' must be an object of biases by token id", param="logit_bias"
        )
    biases: dict[int, float] = {}
    for key in value:
        token = int(key) if key.isascii() and key.isdigit() and len(key) < len("2147483648") else -1
        if not 0 <= token < vocabulary:
            raise InvalidRequest(
                f"'logit_bias' has {key[:20]!r}, which is no token of this model",
                param="logit_bias",
            )
        try:
            bias = read_number(value, key, _BIAS)
        except InvalidRequest as error:
            raise InvalidRequest(
                f"'logit_bias' must have numbers between {_BIAS.least:g} and {_BIAS.most:g}",
                param="logit_bias",
            ) from error
        if bias:
            biases[token] = bias
    return MappingProxyType(biases)
