"""What requests add up to, by model and node: plain numbers, made into Prometheus' at each scrape.

The client library takes a lock for each number; here a request adds its dozen without one, from
the event loop that owns them.
"""

from bisect import bisect_left
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

_DURATION: Final = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200)
_FIRST_TOKEN: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200)
_RATE: Final = (1, 2.5, 5, 10, 15, 20, 30, 40, 60, 80, 120, 200, 400)
_OVERHEAD: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)
_WHERE: Final = ("model", "node")
#: Where a label would be, were it known.
UNKNOWN: Final = "unknown"
_TOTALS: Final = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens")


class Distribution:
    """How often a value was at most each of some bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return the running counts as Prometheus has them."""
        told: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip((*self.bounds, inf), self.counts, strict=True):
            running += count
            told.append(("+Inf" if bound == inf else repr(float(bound)), running))
        return told


@dataclass(slots=True)
class Tally:
    """One model on one node."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cold_starts: int = 0
    evictions: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    duration: Distribution = field(default_factory=lambda: Distribution(_DURATION))
    first_token: Distribution = field(default_factory=lambda: Distribution(_FIRST_TOKEN))
    rate: Distribution = field(default_factory=lambda: Distribution(_RATE))
    overhead: Distribution = field(default_factory=lambda: Distribution(_OVERHEAD))


_COUNTERS: Final = (
    ("requests", "cortex_requests", "Requests that ended."),
    ("prompt_tokens", "cortex_prompt_tokens", "Prompt tokens."),
    ("completion_tokens", "cortex_completion_tokens", "Generated tokens."),
    ("cached_tokens", "cortex_cached_prompt_tokens", "Prompt tokens found in a prefix cache."),
    ("cold_starts", "cortex_cold_starts", "Loads that requests caused."),
    ("evictions", "cortex_evictions", "Models asked to leave for another."),
)
_HISTOGRAMS: Final = (
    (
        "duration",
        "cortex_request_duration_seconds",
        "From taking the request to its last byte.",
    ),
    (
        "first_token",
        "cortex_time_to_first_token_seconds",
        "From taking the request to its first token.",
    ),
    ("rate", "cortex_tokens_per_second", "Decoded tokens a second after the first one."),
    (
        "overhead",
        "cortex_gateway_overhead_seconds",
        "Time the gateway itself spent before it asked the node.",
    ),
)


class Tallies(Collector):
    """Every tally, and how often each decision was taken for each reason."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}
        self._decisions: dict[tuple[str, str], int] = {}
        self._refusals: dict[tuple[str, str], int] = {}
        self._retries: dict[str, int] = {"made": 0, "withheld": 0}

    def of(self, model: str, node: str) -> Tally:
        """Return the tally of a model on a node."""
        where = (model, node)
        if (found := self._tallies.get(where)) is None:
            found = self._tallies[where] = Tally()
        return found

    def decided(self, decision: str, reason: str) -> None:
        """Count a decision."""
        key = (decision, reason)
        self._decisions[key] = self._decisions.get(key, 0) + 1

    def refused(self, route: str, code: str) -> None:
        """Count a failure on a route that is not for inference."""
        key = (route, code)
        self._refusals[key] = self._refusals.get(key, 0) + 1

    def retried(self, outcome: str) -> None:
        """Count a request that was sent again (`made`), or was not (`withheld`)."""
        self._retries[outcome] += 1

    def keep(self, models: Container[str], nodes: Container[str]) -> None:
        """Forget what is neither of these models nor of these nodes; what is unknown stays."""
        for model, node in list(self._tallies):
            if not (model in models or model == UNKNOWN) or not (node in nodes or node == UNKNOWN):
                del self._tallies[model, node]

    def totals(self) -> dict[str, int]:
        """Return what all requests come to, models and nodes that are gone left out."""
        told = {name: sum(getattr(one, name) for one in self._tallies.values()) for name in _TOTALS}
        errors = sum(sum(one.errors.values()) for one in self._tallies.values())
        return {**told, "errors": errors}

    def collect(self) -> Iterator[Metric]:
        """Return everything as Prometheus has it."""
        tallies = sorted(self._tallies.items())
        for name, metric, said in _COUNTERS:
            counter = CounterMetricFamily(metric, said, labels=_WHERE)
            for where, tally in tallies:
                counter.add_metric(where, getattr(tally, name))
            yield counter
        errors = CounterMetricFamily(
            "cortex_request_errors",
            "Requests that ended in an error, by its code.",
            labels=(*_WHERE, "code"),
        )
        for where, tally in tallies:
            for code, count in sorted(tally.errors.items()):
                errors.add_metric((*where, code), count)
        yield errors
        for name, metric, said in _HISTOGRAMS:
            histogram = HistogramMetricFamily(metric, said, labels=_WHERE)
            for where, tally in tallies:
                told: Distribution = getattr(tally, name)
                histogram.add_metric(where, told.buckets(), told.total)
            yield histogram
        decisions = CounterMetricFamily(
            "cortex_route_decisions", "Routing decisions.", labels=("decision", "reason")
        )
        for labels, count in sorted(self._decisions.items()):
            decisions.add_metric(labels, count)
        yield decisions
        refusals = CounterMetricFamily(
            "cortex_route_errors",
            "Requests for anything but inference that ended in an error, by its code.",
            labels=("route", "code"),
        )
        for labels, count in sorted(self._refusals.items()):
            refusals.add_metric(labels, count)
        yield refusals
        retries = CounterMetricFamily(
            "cortex_retries",
            "Requests sent again to another replica, and those that were not, to spare the fleet.",
            labels=("outcome",),
        )
        for outcome, count in sorted(self._retries.items()):
            retries.add_metric((outcome,), count)
        yield retries
