"""A whole exchange with llama.cpp: what it is sent, and how its stream is read."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from cortex_neuron.harness import Conversation
from cortex_neuron.llamacpp.adapting import adapted, gathered
from cortex_neuron.llamacpp.stopping import ASK, StopReasons


def conversation(body: Mapping[str, Any], *, knows_tools: bool) -> Conversation:
    """Return how to have `body` answered. Raises InvalidRequest."""
    plain = adapted(body, knows_tools=knows_tools)
    bodies = [plain] if (other := gathered(plain)) is None else [plain, other]
    if not (stops := plain.get("stop")):
        return Conversation(bodies=tuple(bodies))
    return Conversation(
        bodies=tuple({**one, **ASK} for one in bodies),
        rewriting=partial(StopReasons, frozenset(stops)),
    )
