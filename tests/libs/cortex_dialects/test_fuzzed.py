"""A second of what `make fuzz` does for ten minutes."""

import random

from tests.fuzz.dialects import a_request, a_stream


def test_spoiled_requests_and_streams_give_answers_or_our_own_errors() -> None:
    """And nothing else, within bounds of what came in."""
    chance = random.Random(7)
    ends = {end for _ in range(700) for end in (a_request(chance), a_stream(chance))}

    assert ends == {"refused", "translated", "failed", "whole"}
