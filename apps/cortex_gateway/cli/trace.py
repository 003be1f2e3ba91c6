"""Read a log as a trace: who asked for what, and when."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from cortex_core.loading import ConfigError
from cortex_router.simulation import Arrival

#: What the gateway writes when a request has ended; other lines of its log are passed over.
_ENDED = frozenset({"request.done", "request.failed"})


def read_trace(lines: Iterable[str], where: str) -> list[Arrival]:
    """Return the requests in order, the first at 0. Raises ConfigError naming the line.

    A line is JSON: our own `request.done` or `request.failed`, as far as its tokens were counted,
    or `{"at", "model", "prompt_tokens", "completion_tokens", "session"}`, `at` in seconds and
    `session` optional.
    """
    found = sorted(_arrivals(lines, where), key=lambda arrival: arrival.at)
    return [one._replace(at=one.at - found[0].at) for one in found]


def _arrivals(lines: Iterable[str], where: str) -> Iterator[Arrival]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            arrival = _arrival(said) if isinstance(said, dict) else None
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{where}: line {number}: not a request: {error!r}") from error
        if arrival is not None:
            yield arrival


def _arrival(said: dict[str, Any]) -> Arrival | None:
    if "event" in said:
        if said["event"] not in _ENDED or "model" not in said or "prompt_tokens" not in said:
            return None
        # It is logged when it has ended.
        ended = datetime.fromisoformat(said["timestamp"]).timestamp()
        at = ended - said.get("duration_ms", 0.0) / 1000
    else:
        at = float(said["at"])
    return Arrival(
        at=at,
        model=str(said["model"]),
        prompt_tokens=int(said["prompt_tokens"]),
        completion_tokens=max(1, int(said.get("completion_tokens") or 1)),
        session=said.get("session"),
    )
