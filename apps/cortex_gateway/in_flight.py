"""Which requests are in flight, and what became of the last ones: seen, and ended on demand.

A request's `Outcome` is its record: entered when it comes, taken out when it ends. Everything else
is made of it when somebody asks.
"""

import asyncio
import time
from collections import deque
from typing import Any

from cortex_core.errors import RequestNotFound
from cortex_gateway.accounting import Outcome

KEEP_ENDED = 100
#: Of a name that a client made up.
_NAME_CHARS = 200


class InFlight:
    """The requests of this process."""

    def __init__(self) -> None:
        self._running: dict[Outcome, asyncio.Task[Any] | None] = {}
        self._ended: deque[Outcome] = deque(maxlen=KEEP_ENDED)

    def enter(self, outcome: Outcome) -> None:
        """Take in a request that the current task answers; `leave` must follow."""
        self._running[outcome] = asyncio.current_task()

    def leave(self, outcome: Outcome) -> None:
        """Take out a request that ended."""
        del self._running[outcome]
        self._ended.append(outcome)

    def cancel(self, request_id: str) -> int:
        """End every request of this name and return how many; clients may use one twice.

        Raises RequestNotFound.
        """
        found = [one for one in self._running if one.request_id == request_id]
        if not found:
            raise RequestNotFound(f"no request {request_id[:_NAME_CHARS]!r} is in flight")
        for one in found:
            one.cancelled = True
            if (task := self._running[one]) is not None:
                task.cancel()
        return len(found)

    def picture(self) -> dict[str, Any]:
        """Return `GET /fleet/requests`: the oldest in flight first, the latest ended first."""
        now = time.perf_counter()
        return {
            "in_flight": [_running(one, now) for one in self._running],
            "ended": [_ended(one, now) for one in reversed(self._ended)],
        }


def _running(one: Outcome, now: float) -> dict[str, Any]:
    waited = one.waited_secs + (now - one.waits_since if one.waits_since is not None else 0.0)
    return _common(one) | {
        "phase": one.phase,
        "age_secs": round(now - one.started, 3),
        "waited_secs": round(waited, 3),
        "tokens": one.pieces,
    }


def _ended(one: Outcome, now: float) -> dict[str, Any]:
    ended = one.ended if one.ended is not None else now
    row = _common(one) | {
        "outcome": _word(one),
        "status": one.status,
        "duration_secs": round(ended - one.started, 3),
        "ended_secs_ago": round(now - ended, 3),
        "tokens": one.usage.completion if one.usage is not None else one.pieces,
    }
    known = {
        "code": one.code,
        "finish_reason": one.finish_reason,
        "prompt_tokens": one.usage.prompt if one.usage is not None else None,
        "first_token_secs": one.first_token_secs,
    }
    return row | {name: value for name, value in known.items() if value is not None}


def _common(one: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": one.request_id,
        "route": one.route,
        "dialect": one.dialect,
        "stream": one.stream,
        "principal": one.principal,
        "attempts": one.attempts,
    }
    model = one.model or one.asked_for[:_NAME_CHARS]
    known = {"key": one.key, "model": model or None, "node": one.node, "decision": one.decision}
    return row | {name: value for name, value in known.items() if value is not None}


def _word(one: Outcome) -> str:
    if one.cancelled:
        return "cancelled"
    if one.client_gone:
        return "client_gone"
    return "done" if one.code is None else "failed"
