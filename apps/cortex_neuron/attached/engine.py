"""A model of a server that is there already, as an engine: used, and never started or stopped."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from cortex_core.errors import (
    ApiError,
    InvalidRequest,
    QueueFull,
    RequestTooLarge,
    Unavailable,
    UpstreamMalformed,
)
from cortex_neuron.faults import Ending, Fault
from cortex_neuron.harness import Conversation
from cortex_neuron.paging import SharedCache

log = structlog.get_logger()

_LONGEST = 500
_CONTEXT_WORDS = ("maximum context length", "context length", "context size")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedEngine:
    """One model of one server."""

    server: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    slots: int
    context: int | None
    capabilities: tuple[str, ...]
    pid: int | None = None
    cache: SharedCache | None = None

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        """Return the body as it came: the server speaks OpenAI itself."""
        return Conversation(bodies=(body,))

    def refusal(self, status: int, body: Any) -> ApiError:
        """Return what a client is told: what is wrong with its request in the server's words."""
        message = _message(body)
        match status:
            case 401 | 403:
                log.error("attached.unauthorized", server=self.server, status=status)
                return Unavailable("the model's server does not accept this node's token")
            case 413:
                return RequestTooLarge(message)
            case 429:
                return QueueFull("the model's server takes no more requests now")
            case 404:
                return Unavailable("the model's server does not have it now")
            case _ if 400 <= status < 500:  # noqa: PLR2004
                return InvalidRequest(message, code=_code(message))
            case 503:
                return Unavailable("the model's server is not ready")
            case _:
                log.error("engine.failed", server=self.server, status=status, detail=message)
                return UpstreamMalformed("the model's server failed on this request")

    async def wait(self) -> Ending:
        """Wait for ever: its end is not ours to see, and whoever watches the server tells it."""
        await asyncio.Event().wait()
        return Ending(Fault.STOPPED, "")

    def kill(self, ending: Ending) -> None:
        """Leave it alone."""

    async def stop(self, timeout_secs: float) -> None:
        """Leave it alone."""


def _message(body: Any) -> str:
    """Return why a server refuses: OpenAI's `error`, vLLM's `message`, FastAPI's `detail`."""
    value = body if isinstance(body, Mapping) else {}
    error = value.get("error")
    places = (error.get("message") if isinstance(error, Mapping) else error,)
    for found in (*places, value.get("message"), value.get("detail")):
        if isinstance(found, str) and found:
            return found[:_LONGEST]
    return "the model's server refused the request"


def _code(message: str) -> str | None:
    lower = message.lower()
    if any(words in lower for words in _CONTEXT_WORDS):
        return "context_length_exceeded"
    return None
