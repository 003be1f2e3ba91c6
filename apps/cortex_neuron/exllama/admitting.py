"""Whether a job fits its engine: known before the library hears of it.

exllamav2 itself looks at the whole cache only, and goes on past the length that a model's positions
are made for without a word.
"""

from cortex_core.errors import InvalidRequest
from cortex_neuron.exllama.jobs import Limits


def answer_room(prompt: int, wanted: int | None, limits: Limits) -> int:
    """Return how many tokens an answer to `prompt` tokens may have, `wanted` at most.

    Raises InvalidRequest when there is no prompt, or no room for a single token behind it.
    """
    if not prompt:
        raise InvalidRequest("the prompt has no tokens", param="prompt")
    most = min(limits.context, limits.cache)
    if prompt >= most:
        raise InvalidRequest(
            f"This model's maximum context length is {most} tokens; the prompt has {prompt}.",
            code="context_length_exceeded",
            extra={"max": most, "prompt_len": prompt},
        )
    return min(most - prompt, most if wanted is None else wanted)
