"""What a fleet costs: tokens a second through cortex and neuron against exllamav2 alone."""

import time
from collections.abc import Sequence
from statistics import median

from cortex_neuron.exllama.harness import can_page
from tests.gpu.answering import chat, prompts, streams
from tests.gpu.child import Child, child
from tests.gpu.stage import OPTIONS, STREAMS, Stage
from tests.gpu.verdicts import Failed, NotApplicable

GOAL = 0.97
_CHUNK = 2048


def throughput(stage: Stage, *, rounds: int = 6, tokens: int = 256) -> str:
    """Eight streams through the fleet give at least 97 % of what exllamav2 alone gives.

    Both have the model loaded, with the same cache, and are asked in turn, the first one
    alternating; prompts are as long, and no cache knows them. Ratios are taken within a round.
    """
    if not stage.facts.has_chat_template:
        raise NotApplicable("the model has no chat template")
    stage.loaded()
    with child("tests.gpu.bare", [stage.first]) as bare:
        bare.ask(
            {
                "path": str(stage.folder),
                "context": OPTIONS["context"],
                "cache": OPTIONS["cache_tokens"],
                "chunk": _CHUNK,
                "streams": STREAMS,
                "paged": can_page([stage.first]),
            }
        )
        pairs = list[tuple[float, float]]()
        for number in range(-1, rounds):
            asked = {
                "fleet": lambda name: _fleet(stage, name, tokens),
                "bare": lambda name: _bare(stage, bare, name, tokens),
            }
            names = list(asked)[:: 1 if number % 2 else -1]
            got = {one: asked[one](f"round {number}, {one}") for one in names}
            if number >= 0:  # The first one warms both.
                pairs.append((got["fleet"], got["bare"]))
    return judged(pairs)


def judged(pairs: Sequence[tuple[float, float]]) -> str:
    """Return what was measured: tokens a second of both, by round. Raises Failed below the goal."""
    ratios = [fleet / bare for fleet, bare in pairs]
    fleet, bare = (median(one) for one in zip(*pairs, strict=True))
    told = (
        f"{median(ratios):.1%} of exllamav2 alone ({min(ratios):.1%} to {max(ratios):.1%} in "
        f"{len(pairs)} rounds): {fleet:.0f} of {bare:.0f} tokens/s, {STREAMS} streams"
    )
    if median(ratios) < GOAL:
        raise Failed(f"below {GOAL:.0%}: {told}")
    return told


def _fleet(stage: Stage, name: str, tokens: int) -> float:
    began = time.perf_counter()
    answers = streams(stage.cortex, name, tokens)
    return sum(one.tokens for one in answers) / (time.perf_counter() - began)


def _bare(stage: Stage, bare: Child, name: str, tokens: int) -> float:
    asked = prompts(name)
    lengths = [_length(stage, prompt) for prompt in asked]
    said = bare.ask({"prompts": asked, "lengths": lengths, "tokens": tokens})
    rate: float = said["tokens"] / said["secs"]
    return rate


def _length(stage: Stage, prompt: str) -> int:
    """Return how many tokens the fleet's prompt has, with the model's own template."""
    answer = stage.neuron.http.post(f"{stage.neuron.url}/tokenize", json=chat(prompt, 1))
    count: int = answer.json()["count"]
    return count
