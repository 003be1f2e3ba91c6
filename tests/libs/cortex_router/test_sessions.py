"""The memory of conversations: bounded, two generations, never a list to sort."""

from hypothesis import given
from hypothesis import strategies as st

from cortex_router.sessions import GENERATION_SECS, GENERATION_SIZE, Count, Home, Sessions

HOME = Home("n0", 10)


def test_a_conversation_is_remembered_for_a_generation_after_its_last_use() -> None:
    """Young, then old, then forgotten."""
    young = Sessions().at(0.0).moved_to("m", "s", HOME)
    old = young.at(GENERATION_SECS)
    gone = old.at(2 * GENERATION_SECS)

    assert young.home("m", "s") == HOME
    assert young.at(GENERATION_SECS - 1) is young
    assert old.home("m", "s") == HOME
    assert gone.home("m", "s") is None
    assert (young.generation, old.generation, gone.generation) == (0, 1, 2)


def test_using_it_again_keeps_it() -> None:
    """And its newest home counts."""
    used = Sessions().at(0.0).moved_to("m", "s", HOME).at(GENERATION_SECS)
    used = used.moved_to("m", "s", Home("n1", 20))

    assert used.home("m", "s") == Home("n1", 20)
    assert used.at(2 * GENERATION_SECS).home("m", "s") == Home("n1", 20)


def test_the_same_words_to_another_model_are_another_conversation() -> None:
    """A model's cache is its own."""
    assert Sessions().moved_to("m", "s", HOME).home("other", "s") is None


def test_a_full_generation_ends_before_its_time() -> None:
    """However many conversations there are, the memory holds two generations at most."""
    sessions = Sessions().at(0.0)
    for number in range(3 * GENERATION_SIZE):
        sessions = sessions.at(1.0).moved_to("m", f"s{number}", HOME)

    assert len(sessions.young) == len(sessions.old) == GENERATION_SIZE
    assert sessions.home("m", f"s{GENERATION_SIZE - 1}") is None
    assert sessions.home("m", f"s{GENERATION_SIZE}") == HOME


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 4))
def test_a_count_fades_with_the_generations(young: int, old: int, later: int) -> None:
    """One step makes the young old and forgets the old, two forget all."""
    expected = [young + old, young, 0, 0, 0]

    assert Count(3, young, old).at(3 + later).total == expected[later]
