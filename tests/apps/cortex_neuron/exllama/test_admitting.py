"""Whether a job fits: never more than there is, and never a job that asks for nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.errors import InvalidRequest
from cortex_neuron.exllama.admitting import answer_room
from cortex_neuron.exllama.jobs import Limits

SIZES = st.integers(1, 1 << 20)


@given(prompt=SIZES, wanted=st.none() | SIZES, context=SIZES, cache=SIZES)
def test_a_job_always_fits(prompt: int, wanted: int | None, context: int, cache: int) -> None:
    """Prompt and answer stay within context and cache, and the answer has a token at least."""
    limits = Limits(context=context, cache=cache, page=256, slots=1)
    if prompt >= min(context, cache):
        with pytest.raises(InvalidRequest):
            answer_room(prompt, wanted, limits)
        return
    room = answer_room(prompt, wanted, limits)

    assert room >= 1
    assert prompt + room <= min(context, cache)
    assert room == wanted or prompt + room == min(context, cache)


def test_a_prompt_that_is_too_long_is_told_by_how_much() -> None:
    """In the words that clients know."""
    limits = Limits(context=100, cache=256, page=256, slots=1)
    with pytest.raises(InvalidRequest) as caught:
        answer_room(100, 1, limits)

    assert caught.value.extra == {"max": 100, "prompt_len": 100}
    assert "maximum context length is 100 tokens" in caught.value.message


def test_no_prompt_is_no_job() -> None:
    """The library would fail on it."""
    with pytest.raises(InvalidRequest):
        answer_room(0, 5, Limits(context=100, cache=256, page=256, slots=1))
