"""Other names of models."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_router import NodeObserved, apply, fleet_view
from cortex_router.aliases import listed, matched, resolve
from tests.libs.cortex_router.fleets import fleet, node, replica

MODELS = {"qwen3-8b": 1, "org/llama": 2, "claude-local": 3}
ALIASES = {
    "gpt-4o": "qwen3-8b",
    "claude-*": "qwen3-8b",
    "claude-haiku-*": "org/llama",
    "local/*": "*",
}


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt-4o", "qwen3-8b"),
        ("claude-sonnet-4-5", "qwen3-8b"),
        ("claude-haiku-4-5", "org/llama"),
        ("claude-local", "claude-local"),
        ("local/org/llama", "org/llama"),
        ("local/nothing", "local/nothing"),
        ("claude-", "claude-"),
        ("nothing", "nothing"),
    ],
)
def test_the_name_that_says_most_wins(name: str, model: str) -> None:
    """Exact aliases, then models, then the longest pattern."""
    assert resolve(ALIASES, name, MODELS.__contains__) == model


def test_a_pattern_without_a_star_in_its_target_leads_there_even_while_nobody_has_it() -> None:
    """So the answer is about the model that was meant."""
    assert resolve({"gpt-*": "away"}, "gpt-4", MODELS.__contains__) == "away"


def test_patterns_are_listed_as_names_that_work() -> None:
    """A client that lists only ids which begin with `claude` finds models."""
    names = listed({"claude-*": "qwen3-8b", "gpt-4o": "qwen3-8b", "anthropic/*": "*"}, MODELS)

    assert names == {
        "claude-qwen3-8b": "qwen3-8b",
        "gpt-4o": "qwen3-8b",
        "anthropic/qwen3-8b": "qwen3-8b",
        "anthropic/org/llama": "org/llama",
        "anthropic/claude-local": "claude-local",
    }


@given(
    aliases=st.dictionaries(
        st.from_regex(r"[ab]{0,3}\*?[ab]{0,3}", fullmatch=True).filter(bool),
        st.sampled_from([*MODELS, "*", "gone"]),
        max_size=6,
    )
)
def test_every_listed_name_leads_where_it_says(aliases: Mapping[str, str]) -> None:
    """Whatever the aliases are."""
    for name, model in listed(aliases, MODELS).items():
        assert resolve(aliases, name, MODELS.__contains__) == model


@given(pattern=st.from_regex(r"[ab]{0,3}\*[ab]{0,3}", fullmatch=True), text=st.text("ab"))
def test_what_a_star_stood_for_puts_the_name_together_again(pattern: str, text: str) -> None:
    """A match is the pattern with its star replaced."""
    found = matched(pattern, text)

    if found is not None:
        assert pattern.replace("*", found) == text


def test_a_view_knows_models_of_nodes_and_of_the_catalogue() -> None:
    """Both go before a pattern of the same name."""
    view = fleet(node("a", replica("claude-mine")), aliases={"claude-*": "other"})

    assert view.resolve("claude-mine") == "claude-mine"
    assert view.resolve("claude-x") == "other"
    assert apply(fleet_view((), {}, view.aliases), NodeObserved(view.nodes[0])).knows("claude-mine")
