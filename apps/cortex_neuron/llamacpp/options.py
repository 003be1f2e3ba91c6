"""What a GGUF model's `options` may say; the node's `[harness.llamacpp]` gives the defaults."""

import difflib
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from cortex_core.errors import InvalidRequest
from cortex_core.settings import LlamaCppSettings

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]


class LlamaCppOptions(LlamaCppSettings):
    """Everything that can be chosen for one engine.

    While `shared_context` is on, `context` is the room for the tokens of all requests together, and
    one may use all of it. Off, each of the `parallel` requests has as much, for as many times the
    memory.
    """

    shared_context: bool = False
    gpu_layers: int = Field(default=-1, ge=-1, description="-1: all of them.")
    batch: int = Field(default=2048, ge=1)
    ubatch: int = Field(default=512, ge=1)
    cache_type_k: CacheType = "f16"
    cache_type_v: CacheType = "f16"
    prompt_cache_mb: int = Field(
        default=0, ge=0, description="RAM for prompts that left the slots."
    )
    pooling: Literal["mean", "cls", "last"] | None = None

    @property
    def cells(self) -> int:
        """Tokens that the cache has room for."""
        return self.context if self.shared_context else self.context * self.parallel


def merge_options(
    settings: LlamaCppSettings, options: Mapping[str, Any], context_length: int | None
) -> LlamaCppOptions:
    """Return `settings` overridden by `options`, and no more context than the model was made for.

    Raises InvalidRequest `unsupported_parameter` for an option that is not known or out of bounds.
    """
    valid = sorted(LlamaCppOptions.model_fields)
    if unknown := sorted(set(options) - set(valid)):
        near = difflib.get_close_matches(unknown[0], valid, n=1)
        advice = f"did you mean {near[0]!r}? " if near else ""
        raise InvalidRequest(
            f"the llamacpp harness has no option {unknown[0]!r}; {advice}valid: {', '.join(valid)}",
            code="unsupported_parameter",
            param=f"options.{unknown[0]}",
        )
    try:
        merged = LlamaCppOptions.model_validate({**settings.model_dump(), **options})
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise InvalidRequest(
            f"the option {key!r} of the llamacpp harness is wrong: {problem['msg']}",
            code="unsupported_parameter",
            param=f"options.{key}",
        ) from error
    if context_length is None or merged.context <= context_length:
        return merged
    return merged.model_copy(update={"context": context_length})
