"""How a model is to be loaded: what the daemon writes into an engine's task, and the engine reads.

Sizes are tokens and MiB. Devices are counted as the engine sees them: from 0, its own only.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

#: Tokens of one page of a cache: caches and chunks are whole pages.
PAGE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """An adapter that is laid over every answer."""

    path: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A small model of the same vocabulary that guesses ahead."""

    path: str
    cache_mode: str = "FP16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One model with its cache.

    `context` bounds one request, `cache` all of them together. `split_mb` is what each device
    takes of the weights; None fills one after the other. `guesses` tokens are guessed ahead, by
    `draft` where there is one, else from the text so far; 0 guesses nothing.
    """

    path: str
    context: int
    cache: int
    cache_mode: str = "FP16"
    chunk: int = 2048
    slots: int | None = None
    tensor_parallel: bool = False
    split_mb: tuple[int, ...] | None = None
    reserve_mb: tuple[int, ...] = ()
    rope_scale: float | None = None
    rope_alpha: float | None = None
    draft: Draft | None = None
    guesses: int = 0
    loras: tuple[Lora, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the model's files are."""
        return Path(self.path)

    def as_json(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> "Plan":
        """Return the plan that `as_json` wrote."""
        values = {field.name: said[field.name] for field in fields(cls) if field.name in said}
        split, draft = values.get("split_mb"), values.get("draft")
        return cls(
            **{
                **values,
                "split_mb": None if split is None else tuple(split),
                "reserve_mb": tuple(values.get("reserve_mb", ())),
                "draft": None if draft is None else Draft(**draft),
                "loras": tuple(Lora(**one) for one in values.get("loras", ())),
            }
        )


def whole_pages(tokens: int) -> int:
    """Return `tokens` rounded up to whole pages."""
    return -(-tokens // PAGE) * PAGE
