"""Whom a request is from, and what the key allows."""

import statistics
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_core.access import (
    Denial,
    Denied,
    Grant,
    digest_of,
    identify,
    is_one_of,
)

SECRET = "sk-cortex-0123456789012345678901234567890123456789abc"
ALICE = Grant(name="alice", expires_at=100.0)
RING = {
    digest_of(SECRET): ALICE,
    digest_of("old"): Grant(name="bob", revoked=True, expires_at=1.0),
}


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {SECRET}"},
        {"authorization": f"bearer  {SECRET} "},
        {"x-api-key": SECRET},
        {"authorization": "Basic YTpi", "x-api-key": SECRET},
    ],
)
def test_both_dialects_ways_to_send_a_key(headers: dict[str, str]) -> None:
    """OpenAI's and Anthropic's; a proxy's own `Basic` is not a key."""
    assert identify(RING, headers, 99.9) is ALICE


@pytest.mark.parametrize(
    ("headers", "denied"),
    [
        ({}, Denied(Denial.MISSING)),
        ({"authorization": "Bearer "}, Denied(Denial.MISSING)),
        ({"authorization": SECRET}, Denied(Denial.MISSING)),
        ({"x-api-key": ""}, Denied(Denial.MISSING)),
        ({"authorization": "Bearer no", "x-api-key": SECRET}, Denied(Denial.UNKNOWN)),
        ({"authorization": f"Bearer {SECRET}, Bearer {SECRET}"}, Denied(Denial.UNKNOWN)),
        ({"x-api-key": digest_of(SECRET).hex()}, Denied(Denial.UNKNOWN)),
        ({"x-api-key": "old"}, Denied(Denial.REVOKED, "bob")),
        ({"x-api-key": SECRET}, Denied(Denial.EXPIRED, "alice")),
    ],
)
def test_whoever_is_not_let_in_hears_why(headers: dict[str, str], denied: Denied) -> None:
    """At the very second of its end a key has expired; its digest is no key."""
    assert identify(RING, headers, 100.0) == denied


@given(st.dictionaries(st.sampled_from(["authorization", "x-api-key"]), st.text()), st.floats())
def test_nothing_a_client_says_lets_it_in_or_raises(headers: dict[str, str], now: float) -> None:
    """Only a key does."""
    assert isinstance(identify(RING, headers, now), Denied)


@pytest.mark.parametrize(
    ("models", "names", "covered"),
    [
        (None, ("anything",), True),
        ((), ("anything",), False),
        (("qwen3-8b",), ("qwen3-8b",), True),
        (("qwen3-8b",), ("qwen3-8b-long",), False),
        (("qwen3-8b",), ("gpt-4o", "qwen3-8b"), True),
        (("claude-*",), ("claude-opus",), True),
        (("claude-*",), ("my-claude-opus",), False),
        (("*-8b",), ("qwen3-8b",), True),
        (("ab*ba",), ("aba",), False),
        (("*",), ("",), True),
    ],
)
def test_models_of_a_key(
    models: tuple[str, ...] | None, names: tuple[str, ...], covered: bool
) -> None:
    """By the name that is asked for or the one behind it; a star stands for anything."""
    assert Grant(name="a", models=models).covers(*names) is covered


def test_a_principal_is_the_keys_alone() -> None:
    """The same from every address and worker, another for every other key."""
    assert Grant(name="alice").principal == ALICE.principal
    assert Grant(name="bob").principal != ALICE.principal
    assert len(bytes.fromhex(ALICE.principal)) == 8


def test_a_node_takes_any_of_its_tokens() -> None:
    """So that tokens can be changed one side after the other."""
    digests = (digest_of("new"), digest_of("old"))

    assert is_one_of(digests, {"authorization": "Bearer old"})
    assert is_one_of(digests, {"authorization": "Bearer new"})
    assert not is_one_of(digests, {"authorization": "Bearer older"})
    assert not is_one_of(digests, {})
    assert not is_one_of((), {"authorization": "Bearer "})


def test_a_key_that_is_nearly_right_takes_as_long_as_any_other() -> None:
    """Ten thousand tries each, taken in turns: medians differ by less than the noise."""
    near, far = SECRET[:-1] + "x", "z" * len(SECRET)
    taken: dict[str, list[int]] = {near: [], far: []}
    for _ in range(10_000):
        for secret, times in taken.items():
            headers = {"x-api-key": secret}
            before = time.perf_counter_ns()
            identify(RING, headers, 0.0)
            times.append(time.perf_counter_ns() - before)
    one, other = (statistics.median(times) for times in taken.values())

    assert abs(one - other) <= 0.1 * max(one, other)
