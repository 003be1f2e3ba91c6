"""What a model's `options` may say for exllamav2 and exllamav3; the node's settings go first."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cortex_core.errors import InvalidRequest
from cortex_core.settings import CacheMode, ExllamaSettings
from cortex_neuron.exllama.plan import PAGE, Draft, Lora, Plan, whole_pages

_GUESSES_OF_A_DRAFT = 4
_Mb = Annotated[int, Field(ge=0)]


class LoraOption(BaseModel):
    """An adapter by the path of its folder, and how much of it counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(min_length=1)
    scale: float = Field(default=1.0, ge=-10, le=10)


class ExllamaOptions(ExllamaSettings):
    """Everything that can be chosen for one engine.

    `cache_tokens` is the room for all answers together, at least one context. Lists go by device,
    in the order of the model's devices.
    """

    cache_tokens: int | None = Field(default=None, ge=PAGE)
    tensor_parallel: bool = False
    split_mb: tuple[_Mb, ...] | None = Field(default=None, description="Weights on each device.")
    reserve_mb: tuple[_Mb, ...] = Field(default=(), description="What stays free on each device.")
    rope_scale: float | None = Field(default=None, gt=0, le=1024)
    rope_alpha: float | None = Field(default=None, gt=0, le=1024)
    draft_model: str | None = Field(default=None, description="The folder of a small model.")
    draft_cache_mode: CacheMode = "FP16"
    guesses: int | None = Field(
        default=None, ge=0, le=7, description="Tokens guessed ahead: 4 with a draft model, else 0."
    )
    loras: tuple[LoraOption, ...] = ()

    @property
    def ahead(self) -> int:
        """Tokens that are guessed ahead."""
        if self.guesses is None:
            return 0 if self.draft_model is None else _GUESSES_OF_A_DRAFT
        return self.guesses

    def plan(self, path: Path, context: int, cache: int) -> Plan:
        """Return the plan for a model of `context` tokens, with a cache of `cache`."""
        return Plan(
            path=str(path),
            context=context,
            cache=cache,
            cache_mode=self.cache_mode,
            # A chunk is whole pages, and no longer than what there is to read.
            chunk=max(PAGE, min(self.chunk, context) // PAGE * PAGE),
            slots=self.parallel,
            tensor_parallel=self.tensor_parallel,
            split_mb=self.split_mb,
            reserve_mb=self.reserve_mb,
            rope_scale=self.rope_scale,
            rope_alpha=self.rope_alpha,
            draft=(
                None
                if self.draft_model is None
                else Draft(path=self.draft_model, cache_mode=self.draft_cache_mode)
            ),
            guesses=self.ahead,
            loras=tuple(Lora(path=one.path, scale=one.scale) for one in self.loras),
        )

    def wanted(self, own_context: int) -> tuple[int, int]:
        """Return context and cache as asked for, where the model was made for `own_context`."""
        stretched = own_context * max(self.rope_scale or 1.0, self.rope_alpha or 1.0)
        context = min(self.context or own_context, int(stretched))
        context = max(PAGE, context)
        return context, whole_pages(max(self.cache_tokens or 0, context + self.ahead))


def merge_options(
    harness: str, settings: ExllamaSettings, options: Mapping[str, Any], devices: int
) -> ExllamaOptions:
    """Return `settings` overridden by `options`.

    Raises InvalidRequest `unsupported_parameter` for an option that is not known or out of bounds.
    """
    valid = sorted(ExllamaOptions.model_fields)
    if unknown := sorted(set(options) - set(valid)):
        near = difflib.get_close_matches(unknown[0], valid, n=1)
        advice = f"did you mean {near[0]!r}? " if near else ""
        raise _refused(
            unknown[0],
            f"the {harness} harness has no option {unknown[0]!r}; "
            f"{advice}valid: {', '.join(valid)}",
        )
    try:
        merged = ExllamaOptions.model_validate({**settings.model_dump(), **options})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise _refused(
            key, f"the option {key!r} of the {harness} harness is wrong: {problem['msg']}"
        ) from error
    _check(merged, harness, devices)
    return merged


def _check(options: ExllamaOptions, harness: str, devices: int) -> None:
    if options.chunk % PAGE:
        raise _refused("chunk", f"the option 'chunk' must be a multiple of {PAGE}")
    for name in ("split_mb", "reserve_mb"):
        said = getattr(options, name)
        if said and len(said) != devices:
            raise _refused(
                name,
                f"the option {name!r} of the {harness} harness has {len(said)} numbers, "
                f"and the model has {devices} devices",
            )
    if options.tensor_parallel and devices < 2:  # noqa: PLR2004
        raise _refused("tensor_parallel", "tensors are split over two devices or more")


def _refused(key: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, code="unsupported_parameter", param=f"options.{key}")
