"""Conversations are told apart by what clients send, or by themselves."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_router import rough_tokens, session_key
from cortex_router.affinity import SESSION_HEADERS

LONG_SYSTEM = "You are a careful agent. " * 1600


def chat(first: str, *more: str, system: str = LONG_SYSTEM, **fields: Any) -> dict[str, Any]:
    """A chat of several turns."""
    roles = ("assistant", "user")
    turns = [{"role": roles[n % 2], "content": text} for n, text in enumerate(more)]
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": first},
        *turns,
    ]
    return {"model": "m", "messages": messages, **fields}


@pytest.mark.parametrize("header", SESSION_HEADERS)
def test_a_header_names_the_conversation(header: str) -> None:
    """Whatever the body says, and however it grows."""
    one = session_key({header: "abc"}, chat("hello"))

    assert one == session_key({header: "abc"}, chat("bye"))
    assert one != session_key({header: "abd"}, chat("hello"))


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_cache_key": "abc"},
        {"metadata": {"user_id": json.dumps({"session_id": "abc"})}},
        {"metadata": {"user_id": {"session_id": "abc"}}},
    ],
)
def test_the_body_names_the_conversation(fields: dict[str, Any]) -> None:
    """Codex and Claude Code say it there."""
    one = session_key({}, chat("hello", **fields))

    assert one is not None
    assert one == session_key({}, chat("bye", **fields))
    assert one != session_key({}, chat("hello"))


def test_turns_of_one_conversation_stay_together_without_a_key() -> None:
    """Each turn repeats how it began."""
    turns = [chat("fix the bug"), chat("fix the bug", "done", "and the next")]

    assert len({session_key({}, turn) for turn in turns}) == 1


def test_conversations_with_one_long_system_prompt_are_told_apart() -> None:
    """What they share says nothing about which one it is."""
    keys = {session_key({}, chat(f"task {number}")) for number in range(24)}

    assert len(keys) == 24


def test_the_dialects_tell_conversations_apart_too() -> None:
    """Messages and Responses, text and blocks."""
    blocks = [{"type": "text", "text": "hello"}]
    bodies: list[dict[str, Any]] = [
        {"model": "m", "system": "s", "messages": [{"role": "user", "content": blocks}]},
        {"model": "m", "system": "t", "messages": [{"role": "user", "content": blocks}]},
        {"model": "m", "instructions": "s", "input": "good day"},
        {"model": "m", "instructions": "s", "input": [{"role": "user", "content": "bye"}]},
    ]

    keys = {session_key({}, body) for body in bodies}

    assert None not in keys
    assert len(keys) == 4


def test_a_clients_version_in_the_system_prompt_does_not_matter() -> None:
    """The block changes with every release, the conversation does not."""

    def asked(version: str) -> dict[str, Any]:
        head = {"type": "text", "text": f"x-anthropic-billing-header: cc_version={version}"}
        return {
            "model": "m",
            "system": [head, {"type": "text", "text": "be brief"}],
            "messages": [{"role": "user", "content": "hello"}],
        }

    assert session_key({}, asked("1")) == session_key({}, asked("2"))


def test_one_user_has_many_conversations() -> None:
    """`user` alone would put all of somebody's work on one node."""
    one, two = (session_key({}, chat(text, user="me")) for text in ("a", "b"))

    assert one != two
    assert one != session_key({}, chat("a", user="you"))


@pytest.mark.parametrize(
    "body",
    [
        {"model": "m", "input": "embed me"},
        {"model": "m", "input": ["a", "b"]},
        {"model": "m", "prompt": "Once"},
        {"model": "m", "messages": []},
        {"model": "m", "messages": [{"role": "system", "content": "s"}]},
        {},
    ],
)
def test_what_is_no_conversation_has_no_key(body: dict[str, Any]) -> None:
    """Embeddings and text completions go wherever there is room."""
    assert session_key({}, body) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=12,
)
fields = st.sampled_from(
    ["model", "messages", "system", "input", "instructions", "metadata", "user", "prompt_cache_key"]
)


@given(st.dictionaries(fields, json_values))
def test_whatever_comes_in_nothing_breaks(body: dict[str, Any]) -> None:
    """Wrong types are somebody's mistake, not ours to fall over."""
    key = session_key({}, body)

    assert key is None or len(key) <= 400


@given(st.lists(st.fixed_dictionaries({"role": json_values, "content": json_values}), max_size=4))
def test_whatever_turns_come_in_nothing_breaks(turns: list[Any]) -> None:
    """Roles and contents of any kind."""
    session_key({}, {"messages": turns})


def test_a_key_of_any_length_is_kept_short() -> None:
    """And still tells apart."""
    one, two = (session_key({"session-id": "x" * 10_000 + end}, {}) for end in "ab")

    assert one is not None
    assert len(one) < 100
    assert one != two


def test_deep_nesting_in_the_metadata_is_no_trap() -> None:
    """It is text until we parse it."""
    assert session_key({}, {"metadata": {"user_id": "{" + '"a":{' * 5000}}) is None


def test_tokens_are_guessed_from_bytes() -> None:
    """Four characters each."""
    assert rough_tokens(40_000) == 10_000
