"""What a request takes of a shared cache: the prompt, the longest answer, in whole pages."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import RequestTooLarge
from cortex_neuron.paging import SharedCache

CACHE = SharedCache(tokens=1024, page_tokens=256, context=None, seats=4)
WORDS = "word " * 400  # 500 tokens


def chat(text: str, **more: Any) -> dict[str, Any]:
    """A small conversation."""
    return {"messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize(
    ("body", "pages"),
    [
        (chat("hi", max_tokens=10), 1),
        (chat("hi", max_tokens=250), 1),
        (chat("hi", max_tokens=256), 2),
        (chat("hi", max_completion_tokens=300, max_tokens=1), 2),
        (chat(WORDS, max_tokens=9), 3),
        ({"prompt": WORDS, "max_tokens": 9}, 2),
        ({"prompt": [WORDS, [7] * 200], "max_tokens": 9}, 3),
        ({"prompt": [7] * 600, "max_tokens": 9}, 3),
        ({"input": "hi", "max_tokens": None}, 2),
    ],
)
def test_a_request_needs_whole_pages_to_its_end(body: dict[str, Any], pages: int) -> None:
    """A prompt without its answer would fit, and then fail in the middle."""
    assert CACHE.pages_for(body) == pages


@pytest.mark.parametrize("longest", [None, 0, -1, "many"])
def test_an_answer_of_any_length_counts_as_an_even_share(longest: object) -> None:
    """Else it would have the cache for itself, although most answers are short."""
    assert CACHE.pages_for(chat("hi", max_tokens=longest)) == 2


def test_an_answer_is_no_longer_than_the_context() -> None:
    """Clients that always ask for 32,000 tokens are served all the same."""
    cache = SharedCache(tokens=1024, page_tokens=256, context=512, seats=4)

    assert cache.pages_for(chat("hi", max_tokens=32_000)) == 2


def test_what_can_never_fit_is_refused_with_the_figures() -> None:
    """No wait would help: 413, and what to change."""
    with pytest.raises(RequestTooLarge) as refused:
        CACHE.pages_for(chat("hi", max_tokens=2000))

    assert refused.value.code == "prompt_too_long_for_vram"
    assert refused.value.retry_after_secs is None
    assert refused.value.extra == {"required_tokens": 2004, "budget_tokens": 1024}


@given(
    st.dictionaries(
        st.sampled_from(["messages", "prompt", "input", "max_tokens", "tools"]),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(-9, 9**9), st.text(max_size=9)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3),
                st.dictionaries(st.sampled_from(["role", "content", "text"]), inner, max_size=3),
            ),
            max_leaves=8,
        ),
    )
)
def test_whatever_stands_in_a_body_there_is_an_answer(body: dict[str, Any]) -> None:
    """At least one page and no more than there are, or the refusal."""
    try:
        assert 1 <= CACHE.pages_for(body) <= CACHE.pages
    except RequestTooLarge:
        assert body
