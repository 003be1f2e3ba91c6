"""What a request will take of a cache that all requests of a model share.

It is reckoned before the request has a seat: its prompt by `estimate_tokens`, and the longest
answer it allows. Where requests take more than there is, an engine fails all of them, or keeps some
waiting who have a seat.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cortex_core.errors import RequestTooLarge
from cortex_dialects.estimating import BYTES_PER_TOKEN, estimate_tokens

#: The fields that bound an answer, the newer one first.
_LONGEST_ANSWER: Final = ("max_completion_tokens", "max_tokens")
#: Where prompts stand in requests that are no conversation.
_PROMPTS: Final = ("prompt", "input")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCache:
    """Room for the tokens of all requests together, given out in pages of `page_tokens`.

    One request has no more than `context` of it, None: all of it. `seats` may be served together.
    """

    tokens: int
    page_tokens: int
    context: int | None
    seats: int

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return self.tokens // self.page_tokens

    def pages_for(self, body: Mapping[str, Any]) -> int:
        """Return the pages that a request will need at its end, 1 at least.

        Raises RequestTooLarge when there are fewer, however long it waited. An answer that may be
        of any length counts as an even share of the cache.
        """
        tokens = _prompt_tokens(body) + (_answer_tokens(body) or self.tokens // self.seats)
        if self.context is not None:
            tokens = min(tokens, self.context)  # there the engine ends an answer
        pages = -(-tokens // self.page_tokens)
        if pages > self.pages:
            raise RequestTooLarge(
                f"the request needs room for about {tokens} tokens, and this model has room for"
                f" {self.tokens}; shorten it, or ask for a shorter answer with max_tokens",
                code="prompt_too_long_for_vram",
                extra={"required_tokens": tokens, "budget_tokens": self.tokens},
            )
        return pages


def _prompt_tokens(body: Mapping[str, Any]) -> int:
    found = next((body[name] for name in _PROMPTS if name in body), None)
    if found is None:
        return estimate_tokens(dict(body))
    prompts = found if isinstance(found, list) else [found]
    return max(1, sum(_raw_tokens(one) for one in prompts))


def _raw_tokens(prompt: object) -> int:
    """Return about how many tokens a text, a token, or a list of tokens is."""
    match prompt:
        case str():
            return len(prompt.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN
        case list():
            return len(prompt)
        case _:
            return 1


def _answer_tokens(body: Mapping[str, Any]) -> int | None:
    """Return the longest answer that a request allows; None: of any length."""
    said = next((body[name] for name in _LONGEST_ANSWER if body.get(name) is not None), None)
    return said if isinstance(said, int) and said > 0 else None
