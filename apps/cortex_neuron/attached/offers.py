"""What a server says of itself: its models, and how busy it is. Pure: bytes in, values out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from orjson import JSONDecodeError, loads
from prometheus_client.parser import text_string_to_metric_families

#: Gauges that count requests under way and requests that wait: vLLM, SGLang, llama-server.
_RUNNING = frozenset(
    {"vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing"}
)
_WAITING = frozenset(
    {"vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"}
)
#: A server may list adapters and aliases without end.
MOST_MODELS = 256
_LONGEST_ID = 256


class NoModelList(ValueError):
    """What came is not a list of models as OpenAI has it."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that a server has; the longest context where it says so."""

    id: str
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests a server works on, and how many wait in it; whoever sent them."""

    running: int = 0
    waiting: int = 0


def offers_in(body: bytes) -> tuple[Offer, ...]:
    """Return the models of a `GET /v1/models`. Raises NoModelList."""
    try:
        value = loads(body)
    except JSONDecodeError as error:
        raise NoModelList(str(error)) from None
    rows = value.get("data") if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise NoModelList("it has no list 'data'")
    found = {
        row["id"]: Offer(row["id"], _context(row))
        for row in rows[:MOST_MODELS]
        if isinstance(row, dict) and isinstance(row.get("id"), str)
        if 0 < len(row["id"].strip()) <= _LONGEST_ID
    }
    return tuple(found.values())


def load_in(metrics: bytes) -> Load | None:
    """Return how busy the server is by its Prometheus metrics, None when they do not tell."""
    counts = dict.fromkeys((_RUNNING, _WAITING), 0.0)
    told = False
    for name, value in _samples(metrics.decode(errors="replace")):
        for names in counts:
            if name in names and value >= 0:
                counts[names] += value
                told = True
    return Load(round(counts[_RUNNING]), round(counts[_WAITING])) if told else None


def _context(row: dict[str, Any]) -> int | None:
    """Return the context of one request, as vLLM and SGLang, or llama-server, tell it."""
    meta = row.get("meta")
    for value in (row.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None):
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _samples(text: str) -> Iterator[tuple[str, float]]:
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                yield sample.name, float(sample.value)
    except ValueError:  # what was read before the broken line still counts
        return
