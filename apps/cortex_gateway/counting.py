"""How many tokens a request has, without loading its model: asked of a node that has its files.

A node renders the model's own template with its own tokenizer. Where no node has the files the
answer is an estimate, and says so.
"""

from dataclasses import dataclass
from typing import Any

import structlog

from cortex_core.errors import InvalidRequest, ModelNotFound
from cortex_dialects import estimate_tokens
from cortex_gateway.dispatch import Dispatcher
from cortex_gateway.fleet import Fleet
from cortex_gateway.neuron_client import NodeError

log = structlog.get_logger()

#: The first count for a model starts a small process on the node.
ANSWER_SECS = 60.0
#: What only an answer needs; a node's tokenizer might stumble over it.
_OF_THE_ANSWER = ("stream", "stream_options", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Counted:
    """Tokens of a prompt; `exact` is False for an estimate."""

    tokens: int
    exact: bool


class TokenCounter:
    """Counts tokens of chat completion requests."""

    def __init__(self, fleet: Fleet, dispatcher: Dispatcher) -> None:
        self._fleet = fleet
        self._dispatcher = dispatcher

    async def count(self, chat: dict[str, Any], name: str) -> Counted:
        """Return the prompt's tokens. Raises ModelNotFound, or what a node says of the prompt."""
        view = self._fleet.view()
        model = view.resolve(name)
        if not view.knows(model):
            raise ModelNotFound(f"the model {name!r} is not in the catalogue", param="model")
        body = {k: v for k, v in chat.items() if k not in _OF_THE_ANSWER} | self._naming(model)
        for node in self._nodes(model):
            try:
                tokens = await self._dispatcher.clients[node].tokenize(body, ANSWER_SECS)
            except NodeError as error:
                if error.status is not None:
                    raise _refused(error) from error
                log.warning("tokenize.failed", node=node, model=model, error=str(error))
                continue
            if tokens is not None:
                return Counted(tokens, exact=True)
        return Counted(estimate_tokens(chat), exact=False)

    def _naming(self, model: str) -> dict[str, Any]:
        """Return what tells a node which files are meant, also one that never had the model."""
        entry = next((e for e in self._fleet.catalogue.models if e.id == model), None)
        named = {"source": entry.source, "quant": entry.quant} if entry else {}
        return {"model": model, **{key: value for key, value in named.items() if value is not None}}

    def _nodes(self, model: str) -> list[str]:
        """Return the nodes to ask: those that say they have the model, then the others."""
        healthy = [s for s in self._fleet.nodes.values() if s.healthy]
        ordered = sorted(healthy, key=lambda s: (model not in s.models, s.entry.name))
        return [s.entry.name for s in ordered if s.entry.name in self._dispatcher.clients]


def _refused(error: NodeError) -> InvalidRequest:
    detail = error.detail
    code, message = detail.get("code"), detail.get("message")
    return InvalidRequest(
        str(message or "the prompt cannot be counted"), code=code if isinstance(code, str) else None
    )
