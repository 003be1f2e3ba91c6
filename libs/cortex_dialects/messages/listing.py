"""The model list as Anthropic's clients read it: pages, newest names, and a name to display."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from cortex_dialects.bad_body import BadBody

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One model. `created_at` is RFC 3339; limits are in tokens, None where they are not known."""

    id: str
    display_name: str
    created_at: str
    max_input_tokens: int | None = None
    max_tokens: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return Anthropic's shape. What is listed can be used, so it is never on its way out."""
        return {
            "type": "model",
            "id": self.id,
            "display_name": self.display_name,
            "created_at": self.created_at,
            "lifecycle": "active",
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_tokens,
        }


def page(
    models: Sequence[Listed],
    *,
    limit: str | None = None,
    after_id: str | None = None,
    before_id: str | None = None,
) -> dict[str, Any]:
    """Return one page. An id that is no longer listed starts at the front. Raises BadBody."""
    size = DEFAULT_LIMIT if limit is None else _size(limit)
    ids = [model.id for model in models]
    if before_id is not None:
        end = ids.index(before_id) if before_id in ids else 0
        start = max(0, end - size)
        has_more = start > 0
    else:
        start = ids.index(after_id) + 1 if after_id in ids else 0
        end = start + size
        has_more = end < len(ids)
    shown = models[start:end]
    return {
        "data": [model.as_json() for model in shown],
        "has_more": has_more,
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
    }


def _size(limit: str) -> int:
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= MAX_LIMIT:
        raise BadBody(f"limit must be between 1 and {MAX_LIMIT}", param="limit")
    return int(limit)
