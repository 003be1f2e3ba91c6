"""Token counts as engines report them."""

from typing import Any, NamedTuple


class Usage(NamedTuple):
    """Tokens of one answer. `cached` and `reasoning` are parts of the others; None: not told."""

    prompt: int = 0
    completion: int = 0
    cached: int | None = None
    reasoning: int | None = None

    @classmethod
    def parse(cls, value: Any) -> "Usage | None":
        """Return the usage object of an answer or chunk, None when it is none."""
        if not isinstance(value, dict):
            return None
        return cls(
            prompt=_count(value.get("prompt_tokens")) or 0,
            completion=_count(value.get("completion_tokens")) or 0,
            cached=_detail(value, "prompt_tokens_details", "cached_tokens"),
            reasoning=_detail(value, "completion_tokens_details", "reasoning_tokens"),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the OpenAI form."""
        counts: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }
        if self.cached is not None:
            counts["prompt_tokens_details"] = {"cached_tokens": self.cached}
        if self.reasoning is not None:
            counts["completion_tokens_details"] = {"reasoning_tokens": self.reasoning}
        return counts


def _detail(value: dict[str, Any], details: str, name: str) -> int | None:
    found = value.get(details)
    return _count(found.get(name)) if isinstance(found, dict) else None


def _count(value: Any) -> int | None:
    known = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if known else None
