"""Conversations that share a long system prompt: both nodes work, and nobody changes node.

The published routers either leave one of two nodes idle on this day, or move conversations about
like a coin.
"""

import pytest

from tests.libs.cortex_router.simulation.scenes import SESSIONS, TURNS, agents_on

REQUESTS = SESSIONS * TURNS


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("in_turns", [False, True])
@pytest.mark.parametrize("concurrency", [1, 8, 24])
def test_equal_nodes_share_evenly_and_no_conversation_moves(
    concurrency: int, in_turns: bool, seed: int
) -> None:
    """At most 60/40, and not one switch in 120 turns, whatever runs at once."""
    results = agents_on((1.0, 1.0), concurrency, in_turns=in_turns, seed=seed)
    shares = [(count - 1) / REQUESTS for count in results.share.values()]

    assert max(shares) <= 0.6
    assert (results.turns, results.switches) == (REQUESTS - SESSIONS, 0)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("in_turns", [False, True])
@pytest.mark.parametrize("concurrency", [1, 8, 24])
def test_a_node_twice_as_fast_gets_twice_as_many(
    concurrency: int, in_turns: bool, seed: int
) -> None:
    """As long as seats are not what decides: with all of them free, speed does."""
    results = agents_on((2.0, 1.0), concurrency, in_turns=in_turns, seats=16, seed=seed)
    fast, slow = (count - 1 for count in results.share.values())

    assert 1.8 <= fast / slow <= 2.2
    assert results.switches == 0
